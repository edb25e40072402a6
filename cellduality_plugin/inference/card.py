"""The model card: front matter of the Hugging Face hub, and what a reader has to know before use."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from cellduality_plugin import __version__
from cellduality_plugin.errors import CellDualityError, needs_extra
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
HEADLINES = 4  # metrics of a task in the front matter, at most


def write_card(folder: Path, metrics: Path | None = None, audit: Path | None = None, licence: str = "other") -> Path:
    """Write the card of the model in ``folder`` and return where it is; one that we wrote is replaced.

    ``metrics`` and ``audit`` are what ``cellduality evaluate`` and ``cellduality audit`` wrote; without them the card
    says so. ``licence`` is the model's, as the hub calls it. A CellDualityError if the folder lacks what its use needs,
    the metrics are of other models, or a card of the user's is there.
    """
    with needs_extra("use"):
        import jinja2
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
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters |= {each.__name__: each for each in (written, titled, section_title, shortened)}
    text = environment.get_template("card.md.j2").render(
        head=head.to_yaml(), ours=OURS, name=folder.resolve().name, version=__version__, notes=checkpoint.notes,
        config=checkpoint.config, tasks=checkpoint.config.load_tasks(), vocabulary=checkpoint.config.load_vocabulary(),
        sets=DATASETS, found=found, split=next(iter(found.values()), {}).get("split"),
        audit=read_audit(audit) if audit else None,
    )  # fmt: skip
    write_text(out, text + "\n")
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
