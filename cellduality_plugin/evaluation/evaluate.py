"""One evaluation of several checkpoints on one split: metrics.json and the table of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation import baselines, generated, measures, sampled
from cellduality_plugin.evaluation.baselines import CLASS_MEAN, LOGISTIC, MAJORITY, RESAMPLED, TRANSFER
from cellduality_plugin.evaluation.checkpoints import file_hash, predict_checkpoint, versions
from cellduality_plugin.evaluation.coarse import COARSE_FILE
from cellduality_plugin.evaluation.embedding import PCA_SPACE
from cellduality_plugin.evaluation.metrics import Metric, confusion
from cellduality_plugin.evaluation.points import REAL, point_rows
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
from cellduality_plugin.evaluation.winners import BY_CONSTRUCTION
from cellduality_plugin.files import write_jsonl, write_text
from cellduality_plugin.policies.offline import Decoder
from cellduality_plugin.tasks import TASKS, DualTask
from cellduality_plugin.vocabulary import Vocabulary

__all__ = ["EvaluationSettings", "evaluate", "table"]

FORMAT = "cellduality-metrics"
VERSION = 2
Split = Literal["validation", "test"]
BASELINES = (LOGISTIC, TRANSFER, MAJORITY, RESAMPLED, CLASS_MEAN, NO_CHANGE, MEAN_SHIFT)
"""In the order of their columns."""


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
    anndata, real_cells
        Whether generated cells are written as AnnData, too, and the real cells of the split beside them.
    """

    prediction: PredictionSettings = field(default_factory=PredictionSettings)
    neighbours: tuple[int, ...] = (10, 3, 5, 25)
    components: int = 30
    embedding: str = PCA_SPACE
    seed: int = 0
    resamples: int = 500
    rows: int | None = None
    anndata: bool = False
    real_cells: bool = False


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

    Beside it stand ``predictions/<name>.jsonl``, reused by the next evaluation where nothing changed,
    ``predictions/<name>.h5ad`` with the generated cells, if asked for, and ``points.jsonl``, real and
    generated cells in the space of the distances, for the report. An evaluation that was stopped goes on where it was.

    The same checkpoints, data, settings and versions give the same files, byte by byte, on a machine that computes
    alike; in ``metrics.json`` only ``provenance.command`` and the folders in ``provenance.models`` tell where.

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
    if settings.anndata:
        generated.can_write()
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
        if settings.anndata:
            path, made = out / "predictions" / f"{name}.h5ad", predictions[name]
            generated.write_generated(path, made, sections, vocabulary, made_from[name], real=settings.real_cells)
    optional = [name for name in (f"eval_{OOD}.jsonl", COARSE_FILE) if (data / name).is_file()]
    files = ("vocabulary.json", "cells.jsonl", f"eval_{split}.jsonl", *optional)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "split": split,
        "columns": measure(predictions, sections, vocabulary, settings.prediction),
        "spaces": {section.key: section.yardstick.embedding.name for section in sections},
        "settings": asdict(settings),
        "provenance": {
            "command": list(command),
            "data": {file: file_hash(data / file) for file in files},
            "models": {name: {"folder": str(models[name]), **made} for name, made in made_from.items()},
            "versions": versions(),
        },
    }
    write_jsonl(out / "points.jsonl", point_rows(predictions, sections))
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_text(out / "metrics.json", text)
    return dict(json.loads(text))


def _check_names(models: Mapping[str, Path]) -> None:
    for name in models:
        if name in (REAL, *BASELINES) or not name or name != Path(name).name or name.startswith("."):
            raise CellDualityError(f"{name!r} cannot name a checkpoint", mend="use a word such as base, SFT or GRPO")


def measure(
    predictions: Mapping[str, Sequence[Prediction]],
    sections: Sequence[Section],
    vocabulary: Vocabulary,
    settings: PredictionSettings,
) -> dict[str, Any]:
    """Return the metrics of every column by ``section/metric``: checkpoints, then baselines and real cells.

    Baselines draw as many cells a row as checkpoints were asked for by ``settings``, with the same seed.
    """
    columns = {name: _checkpoint_column(made, sections, vocabulary) for name, made in predictions.items()}
    others: dict[str, dict[str, Any]] = {}
    for section in sections:
        for name, found in _baselines(section, vocabulary, settings).items():
            others.setdefault(name, {}).update(_prefixed(section.key, found))
    for name in BASELINES:
        if name in others:
            columns[name] = {"kind": "baseline", "metrics": others[name]}
    columns[REAL] = {"kind": "real", "metrics": others.get(REAL, {})}
    for column in columns.values():
        for key, metric in column["metrics"].items():
            metric["real"] = columns[REAL]["metrics"].get(key, {}).get("value")
    return columns


def _baselines(section: Section, vocabulary: Vocabulary, settings: PredictionSettings) -> dict[str, dict[str, Metric]]:
    """Return the metrics of baselines and of real cells, by column."""
    yardstick, train = section.yardstick, section.yardstick.train
    rows = dict(sorted(section.rows.items()))  # as predictions are: their order in the file is of no matter
    if section.names_labels:
        known = [e for e in rows.values() if isinstance(e.gold, str) and "cell" in e.inputs]
        gold, cells = [str(e.gold) for e in known], [tuple(e.inputs["cell"]) for e in known]
        answers = {
            LOGISTIC: baselines.logistic_labels(train, cells, vocabulary.genes),
            TRANSFER: baselines.transferred_labels(train, cells, yardstick.embedding, yardstick.neighbours[0]),
            MAJORITY: baselines.majority_labels(train, len(cells)),
        }
        return {name: _label_metrics(section, gold, predicted) for name, predicted in answers.items()}
    if not section.writes_cells:
        return {}
    asked = [yardstick.held_out.name_of.get(row, str(e.unknown)) for (_, row), e in rows.items()]
    found = {REAL: measures.real_metrics(asked, yardstick)}
    if section.writes_responses:
        found[REAL] |= real_response_metrics(yardstick)
        for name, made in response_baselines(rows, yardstick).items():
            found[name] = _cells_of_baseline(made, yardstick) | response_metrics(made, rows, yardstick)
    elif any(train.labelled):
        samples, seed = settings.samples, settings.seed
        resampled = baselines.resampled_cells(train, rows, samples, seed)
        drawn = baselines.class_mean_cells(train, rows, vocabulary.genes, samples, seed)
        found |= {RESAMPLED: _cells_of_baseline(resampled, yardstick), CLASS_MEAN: _cells_of_baseline(drawn, yardstick)}
    return found


def _cells_of_baseline(made: Sequence[Prediction], yardstick: measures.Yardstick) -> dict[str, Metric]:
    """Return the metrics of cells that cannot but hold real genes, each once: which says nothing of the baseline."""
    found = measures.cell_metrics(made, yardstick)
    if all(p.answer for p in made):
        for name in ("validity", "duplicates"):
            found[name] = replace(found[name], interval=None, note=BY_CONSTRUCTION)
    return found


def _checkpoint_column(
    predictions: Sequence[Prediction], sections: Sequence[Section], vocabulary: Vocabulary
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    matrices, failed = {}, {}
    for section in sections:
        made = [p for p in predictions if (p.task, p.id) in section.rows]
        # The labels of a foreign set are words that nobody taught.
        own = {} if section.shared else sampled.truth_metrics(made, section.yardstick)
        if section.names_labels:
            greedy, drawn = [p for p in made if not p.drawn], [p for p in made if p.drawn]
            made = greedy or drawn  # the headline, and what is counted
            gold, predicted = measures.gold_and_predicted(made)
            own |= _label_metrics(section, gold, predicted) if greedy else {}
            own |= sampled.sampled_metrics(drawn, section) if drawn else {}
            labels = section.labels(vocabulary)
            counts = confusion(*section.comparable(gold, predicted), labels)
            matrices[section.key] = {"labels": labels, "counts": counts.tolist()}
        elif section.writes_cells:
            own |= measures.cell_metrics(made, section.yardstick)
            if section.writes_responses:
                own |= response_metrics(made, section.rows, section.yardstick)
        own["dual_similarity"] = measures.dual_similarity(made, section.yardstick)
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
