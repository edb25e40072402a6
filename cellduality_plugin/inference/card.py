"""The model card: front matter of the Hugging Face hub, and what a reader has to know before use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from cellduality_plugin import __version__
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.audit.run import read_audit
from cellduality_plugin.evaluation.metrics.registry import place, titled
from cellduality_plugin.evaluation.predictions import model_hash
from cellduality_plugin.evaluation.report import read_metrics
from cellduality_plugin.evaluation.tables import section_title, written
from cellduality_plugin.files import write_text
from cellduality_plugin.inference.checkpoint import Checkpoint, read_checkpoint
from cellduality_plugin.reward_names import shortened
from data_prep.datasets import DATASETS

CARD = "README.md"
OURS = "<!-- written by cellduality card: written anew by it -->"
HEADLINES = 4
"""Metrics of a task in the front matter, at most."""
OWN_DATA = "a file of one's own"


def write_card(folder: Path, metrics: Path | None = None, audit: Path | None = None, licence: str = "other") -> Path:
    """Write the card of the model in ``folder`` and return where it is; one that we wrote is replaced.

    ``metrics`` and ``audit`` are what ``cellduality evaluate`` and ``cellduality audit`` wrote; without them the card
    says so. ``licence`` is the model's, as the hub calls it. A CellDualityError if the folder lacks what its use needs,
    the metrics are of other models, or a card of the user's is there.
    """
    from huggingface_hub import EvalResult, ModelCardData

    checkpoint, out = read_checkpoint(folder), folder / CARD
    if out.exists() and OURS not in out.read_text(encoding="utf-8", errors="replace"):
        hint = "move it away, or keep it"
        raise CellDualityError("a card that we did not write is there", code="file-taken", where=str(out), hint=hint)
    found = _measured(folder, metrics) if metrics else {}
    results = [
        EvalResult(
            task_type="text-generation", task_name=section_title(section), dataset_type=sets, dataset_name=sets,
            dataset_config=section, dataset_split=one["split"],
            metric_type=name, metric_name=titled(name), metric_value=one["value"],
            metric_args={"interval_95": one["interval"], "n": one["n"], "better": one["better"]},
        )
        for section, names in _headlines(found).items()
        for sets in [_sets(checkpoint, section)]
        for name in names
        for one in [found[section, name]]
    ]  # fmt: skip
    head = ModelCardData(
        license=licence, library_name="transformers", pipeline_tag="text-generation",
        tags=["biology", "single-cell", "cellduality"], model_name=folder.resolve().name, eval_results=results or None,
    )  # fmt: skip
    lines = [
        "---", head.to_yaml(), "---", OURS, "", f"# {folder.resolve().name}", "",
        "A language model that reads and writes single cells as ranked genes, trained with CellDuality "
        f"{__version__} by its own complementary duals.", "",
        "```python", "from cellduality_plugin.inference import Model", "",
        f'Model.load("{folder.resolve().name}").annotate(adata)', "```",
        *_tasks(checkpoint), *_data(checkpoint), *_results(found), *_audited(audit), *_limits(checkpoint),
    ]  # fmt: skip
    write_text(out, "\n".join(lines) + "\n")
    return out


def _measured(folder: Path, path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Return {(section, metric): what was measured of the model in ``folder``}, of those that have a value."""
    content = read_metrics(path)
    own, models = model_hash(folder), content["provenance"]["models"]
    names = [name for name, made_from in models.items() if made_from["model"] == own]
    if not names:
        what = f"measured are {', '.join(models)}, none of which is this model"
        hint = "evaluate it: cellduality evaluate --model NAME=FOLDER ..."
        raise CellDualityError(what, code="other-model", where=str(path), hint=hint)
    metrics = content["columns"][names[0]]["metrics"]
    found = {
        (key.rpartition("/")[0], key.rpartition("/")[2]): {**one, "split": content["split"]}
        for key, one in metrics.items()
        if one["value"] is not None
    }
    return dict(sorted(found.items(), key=lambda item: (item[0][0], place(item[0][1]), item[0][1])))


def _headlines(found: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the first metrics of each section: the others are in the text."""
    sections = groupby(found, key=lambda each: each[0])  # in their order
    return {section: [name for _, name in own][:HEADLINES] for section, own in sections}


def _sets(checkpoint: Checkpoint, section: str) -> str:
    """Return the sets that a section is about, as far as the folder tells."""
    task, _, part = section.partition("@")
    line = checkpoint.notes.get("line", {}).get(task, {})
    known = line.get("sets", checkpoint.notes["sources"])
    return part if part not in ("", "ood") else ", ".join(known)


def _table(title: str, *columns: str) -> list[str]:
    return ["", f"## {title}", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]


def _tasks(checkpoint: Checkpoint) -> Iterator[str]:
    yield from _table("What it answers", "pair", "answer", "reward", "genes of its questions")
    tasks, vocabulary = checkpoint.config.load_tasks(), checkpoint.config.load_vocabulary()
    for name, genes in checkpoint.notes["genes"].items():
        task = tasks[name]
        kind = getattr(task.answer, "kind", "")
        answer = f"{kind}: {vocabulary.written(kind)}" if kind else "ranked genes"
        reward = shortened(checkpoint.config.tasks[name].reward)
        yield f"| `{name}` | {answer} | `{reward}` | {len(genes)} |"


def _data(checkpoint: Checkpoint) -> Iterator[str]:
    notes = checkpoint.notes
    yield from _table("Training data", "set", "cells that showed their label", "licence", "SHA-256")
    for name, digest in notes["sources"].items():
        known = DATASETS.get(name)
        title, licence = (known.title, known.licence) if known else (OWN_DATA, "not known here")
        yield f"| `{name}`: {title} | {notes['labelled'].get(name, 0)} | {licence} | `{digest[:12]}` |"
    total = sum(notes["labelled"].values())
    yield from ("", f"Label budget: {total} cells showed their label. All other training cells showed none.")


def _results(found: Mapping[tuple[str, str], Mapping[str, Any]]) -> Iterator[str]:
    if not found:
        yield from ("", "## Results", "", "This card was written without an evaluation.")
        return
    head, *table = _table("Results", "task", "metric", "value", "interval", "n", "better", "what")[1:]
    split = next(iter(found.values()))["split"]
    yield from ("", head, "", f"Of the {split} split; 95 % bootstrap intervals over rows.", *table)
    for (section, name), one in found.items():
        interval = " to ".join(map(written, one["interval"])) if one["interval"] else "–"
        what = "; ".join(filter(None, (one["estimator"], one["space"], one["note"]))).replace("|", "/")
        row = section_title(section), titled(name), written(one["value"]), interval, one["n"], one["better"], what
        yield f"| {' | '.join(map(str, row))} |"


def _audited(path: Path | None) -> Iterator[str]:
    yield from ("", "## Audit of the rewards", "")
    if path is None:
        yield "This card was written without an audit."
        return
    content = read_audit(path)
    for task, choice in (content.get("choice") or {}).items():
        yield f"- {task.replace('_', ' ')}: `{choice['reward']}` {choice['why']}"
    for finding in content["findings"] if not content.get("choice") else ():
        yield f"- {finding['task'].replace('_', ' ')}: `{finding['reward']}` AUC {_with_interval(finding['auc'])}"
    if used := content.get("labels_used"):
        yield from ("", f"The audit read further labels: {', '.join(f'{n} of {name}' for name, n in used.items())}.")


def _with_interval(value: Mapping[str, Any] | None) -> str:
    return f"{written(value['value'])} ({' to '.join(map(written, value['interval']))})" if value else "–"


def _limits(checkpoint: Checkpoint) -> Iterator[str]:
    notes = checkpoint.notes
    lines = [f"{task.replace('_', ' ')} {line['r2']:.3f}" for task, line in notes.get("line", {}).items()]
    yield from (
        "", "## Limits", "",
        f"- A cell is its {notes['top_genes']} highest genes of those the model knows, at most; levels are not seen.",
        "- Expression of written cells is a line over log rank and no measurement; R2 of the means of training cells: "
        + (", ".join(lines) or "none was fitted") + ".",
        "- For research: not for diagnosis or treatment.",
        "", "Made with " + ", ".join(f"{name} {version}" for name, version in notes["versions"].items()) + ".",
    )  # fmt: skip
