"""One evaluation of several checkpoints on one split: metrics.json and the table of it."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.baselines import BASELINES, baselines
from cellduality_plugin.evaluation.generated import point_rows, write_generated
from cellduality_plugin.evaluation.metrics import cells, labels, responses
from cellduality_plugin.evaluation.metrics.given import Cells
from cellduality_plugin.evaluation.metrics.registry import BY_CONSTRUCTION, Measurement, load_metric
from cellduality_plugin.evaluation.metrics.responses import Responses
from cellduality_plugin.evaluation.predictions import (
    Prediction,
    PredictionSettings,
    counted,
    file_hash,
    predict_checkpoint,
    versions,
)
from cellduality_plugin.evaluation.sections import EvaluationSettings, Section, files_of, read_sections, rows_by_section
from cellduality_plugin.evaluation.tables import REAL
from cellduality_plugin.files import write_jsonl, write_text
from cellduality_plugin.policies.sharded import Decoder
from cellduality_plugin.profiles import Profiles
from cellduality_plugin.tasks import TASKS, DualTask
from cellduality_plugin.vocabulary import Vocabulary

FORMAT = "cellduality-metrics"
VERSION = 2
Split = Literal["validation", "test"]


def evaluate(
    models: Mapping[str, Path],
    data: Path,
    split: Split,
    out: Path,
    settings: EvaluationSettings | None = None,
    *,
    tasks: Mapping[str, DualTask] = TASKS,
    opener: Callable[[Path], AbstractContextManager[Decoder]] | None = None,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the metrics of ``models`` on ``split``; written to ``out/metrics.json`` whole or not at all.

    ``models`` are checkpoint folders by the name of their column, ``data`` is the prepared folder, ``tasks`` are its
    dual pairs; ``opener`` opens a decoder for a model, ``command`` is what was typed, for the record.

    Beside it stand ``predictions/<name>.jsonl``, ``.h5ad`` with the generated cells, if asked for, and ``points.jsonl``
    for the report. The same checkpoints, data, settings and versions give the same bytes, but for the command and the
    folders in ``provenance``. A CellDualityError if a file is missing or malformed, a name cannot be a file's or is
    taken, or a checkpoint does not load.
    """
    settings = settings or EvaluationSettings()
    for name in models:
        if name in (REAL, *BASELINES) or not name or name != Path(name).name or name.startswith("."):
            what, hint = f"{name!r} cannot name a checkpoint", "use a word such as base, SFT or GRPO"
            raise CellDualityError(what, code="wrong-name", where="--model", hint=hint)
    if settings.anndata and importlib.util.find_spec("anndata") is None:  # before minutes are spent on answers
        hint = "in the folder of CellDuality: pip install '.[prep]', or pass --no-anndata"
        raise CellDualityError("anndata is not installed", code="not-installed", where="--anndata", hint=hint)
    for path in settings.metrics:
        load_metric(path)
    vocabulary = Vocabulary.load(data / "vocabulary.json")
    sections = read_sections(data, split, tasks, vocabulary, settings)
    profiles = Profiles.load(data / "profiles.npz") if (data / "profiles.npz").is_file() else None
    asked = {key: example for section in sections for key, example in section.rows.items()}
    predictions, made_from = {}, {}
    for name, model in models.items():
        file, asking = out / "predictions" / f"{name}.jsonl", settings.prediction
        made, origin = predict_checkpoint(model, asked, vocabulary, asking, file, tasks=tasks, opener=opener)
        predictions[name], made_from[name] = made, {"folder": str(model), **origin}
        if settings.anndata:
            cells_file = file.with_suffix(".h5ad")
            write_generated(cells_file, made, sections, vocabulary, origin, settings.real_cells)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "split": split,
        "columns": measure(predictions, sections, vocabulary, settings.prediction, profiles),
        "spaces": {section.key: section.reference.embedding.name for section in sections},
        "settings": {key: value for key, value in asdict(settings).items() if key != "metrics" or value},
        "provenance": {
            "command": list(command),
            "data": {file: file_hash(data / file) for file in files_of(data, split)},
            "models": made_from,
            "versions": versions(),
        },
    }
    write_jsonl(out / "points.jsonl", point_rows(predictions, sections))
    write_text(out / "metrics.json", json.dumps(content, indent=2, allow_nan=False) + "\n")
    return content


def predict_at_once(models: Mapping[str, Path], data: Path, split: Split, out: Path, how: EvaluationSettings) -> None:
    """Answer with all ``models``, each in a process of its own; an evaluation then reads what they wrote."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "vllm.entrypoints.llm"])  # a dozen seconds, once for all
    with ProcessPoolExecutor(len(models), context) as pool:
        list(pool.map(partial(_predict, data=data, split=split, out=out, how=how), *zip(*models.items(), strict=True)))


def _predict(name: str, model: Path, data: Path, split: Split, out: Path, how: EvaluationSettings) -> None:
    tasks = Config.load(data / "cellduality.json").load_tasks()
    sections = rows_by_section(data, split, tasks, how.rows).values()
    asked = {key: example for rows in sections for key, example in rows.items()}
    vocabulary, file = Vocabulary.load(data / "vocabulary.json"), out / "predictions" / f"{name}.jsonl"
    predict_checkpoint(model, asked, vocabulary, how.prediction, file, tasks=tasks)


def measure(
    predictions: Mapping[str, Sequence[Prediction]],
    sections: Sequence[Section],
    vocabulary: Vocabulary,
    settings: PredictionSettings,
    profiles: Profiles | None = None,
) -> dict[str, Any]:
    """Return the metrics of every column by ``section/metric``: checkpoints, then baselines and real cells."""
    columns: dict[str, dict[str, Any]] = {REAL: {"kind": "real", "metrics": {}}}
    for name in predictions:
        columns[name] = {"kind": "checkpoint", "metrics": {}, "confusion": {}, "failures": {}}

    def add(column: str, section: Section, found: Mapping[str, Measurement]) -> None:
        own = columns.setdefault(column, {"kind": "baseline", "metrics": {}})["metrics"]
        own |= {f"{section.key}/{name}": asdict(each) for name, each in sorted(found.items())}

    for section in sections:
        for name, every in predictions.items():
            made, labelled = section.own(every), section.labels(vocabulary)
            add(name, section, measured(made, section) | labels.measure_duals(made, section))
            columns[name]["failures"][section.key] = labels.failures(counted(made))
            if section.names_labels and len(labelled) <= vocabulary.listed:
                counts = labels.confusion(counted(made), section, labelled).tolist()
                columns[name]["confusion"][section.key] = {"labels": labelled, "counts": counts}
        if section.writes_cells:
            add(REAL, section, _measured_real(section))
        for name, made in baselines(section, vocabulary, settings, profiles).items():
            found = measured(made, section)
            if section.writes_cells and all(p.answer for p in made):  # real genes, each once, by any baseline
                for key in ("validity", "duplicates"):
                    found[key] = replace(found[key], interval=None, note=BY_CONSTRUCTION)
            add(name, section, found)
    for column in columns.values():
        for key, metric in column["metrics"].items():
            metric["real"] = columns[REAL]["metrics"].get(key, {}).get("value")
    return {name: columns[name] for name in (*predictions, *BASELINES, REAL) if name in columns}


def measured(made: Sequence[Prediction], section: Section) -> dict[str, Measurement]:
    """Return the metrics of answers, whoever gave them: of labels, or of cells and of responses where they are such."""
    if section.names_labels:
        return labels.measure(made, section)
    found = cells.measure(Cells.of(made, section.reference)) if section.writes_cells else {}
    if section.writes_responses:
        found |= responses.measure(Responses.of(made, section.rows, section.reference))
    return found


def _measured_real(section: Section) -> dict[str, Measurement]:
    reference, name_of = section.reference, section.reference.held_out.name_of
    asked = [name_of.get(row, str(e.unknown)) for (_, row), e in sorted(section.rows.items(), key=itemgetter(0))]
    found = cells.measure(Cells.of_real(asked, reference))
    return found | (responses.measure(Responses.of_real(reference)) if section.writes_responses else {})
