"""Cells whose labels are known, as annotation asks about them, and how true its confidence is on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.confidence import (
    FORMAT,
    VERSION,
    confidence_metrics,
    reliability,
    risk_coverage,
    set_metrics,
)
from cellduality_plugin.evaluation.rounds.labelling import Opinion, luck
from cellduality_plugin.examples import Example
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.inference.annotating import Annotator
from data_prep.pseudo import question, read_sft, served
from data_prep.views import source_of

FITTED = "validation"
"""The split whose labels are fitted to; the others are for measuring."""


def known_cells(data: Path, annotator: Annotator, split: str, count: int) -> list[tuple[Example, str]]:
    """Return up to ``count`` (question, true label) of a split, in random order, those of the audit first.

    The questions are those of annotation: nothing of the label is in them. A CellDualityError if there is no such cell.
    """
    task = annotator.task
    by_source, _ = served(read_sft(data / "sft.jsonl"), {task.name: task})
    audit, place = data / "audit.jsonl", dict[str, int]()
    for row in read_jsonl(audit) if audit.is_file() else ():
        example = Example.from_label(row["label"])
        if example.task == task.name:
            place.setdefault(example.id, len(place))
    rows = [row for row in read_jsonl(data / "cells.jsonl") if row.get(annotator.kind) in annotator.labels]
    rows = [row for row in rows if row["split"] == split and source_of(row["id"]) in by_source]
    if not rows:
        hint = "use validation (to fit) or test (to measure)"
        raise CellDualityError(f"no {split} cell of {task.name}", code="no-cells", where=str(data), hint=hint)
    rows.sort(key=lambda row: (place.get(row["id"], len(place)), luck(annotator.settings.seed, "known", row["id"])))
    asked = [
        question(task, row, hidden=annotator.hidden, masks=1, rng=annotator.rng(row["id"])) for row in rows[:count]
    ]
    return [(each, str(row[annotator.kind])) for each, row in zip(asked, rows, strict=False)]


def measured(annotator: Annotator, opinions: Sequence[Opinion], truth: Sequence[str], split: str) -> dict[str, Any]:
    """Return how right and how true the confidence is on cells whose labels are known, as JSON.

    ``metrics`` has :func:`~cellduality_plugin.evaluation.confidence.confidence_metrics` of each way to weigh the same
    answers: ``calibrated``, which is what annotation gives and has those of its sets, too; ``uncalibrated``; and the
    ``votes`` alone. On the split of the fit, ``in_sample``, they are those of cells that were fitted to.
    """
    calibration, draws = annotator.calibration, annotator.settings.verify or 1
    ways = {"uncalibrated": [annotator.shares(each, calibrated=False) for each in opinions]}
    if annotator.settings.verify:
        ways["votes"] = [{label: n / draws for label, n in each.votes.items()} for each in opinions]
    if calibration:
        ways = {"calibrated": [annotator.shares(each) for each in opinions], **ways}
    content: dict[str, Any] = {
        "format": FORMAT, "version": VERSION, "split": split, "in_sample": split == FITTED,
        "task": annotator.task.name, "asked": annotator.settings.asked, "n": len(truth),
        "calibration": calibration and asdict(calibration), "metrics": {}, "reliability": {}, "risk_coverage": {},
    }  # fmt: skip
    for way, shares in ways.items():
        labels = [annotator.label(*each) for each in zip(opinions, shares, strict=True)]
        sure = [own.get(label, 0.0) for own, label in zip(shares, labels, strict=True)]
        right = [label == true for label, true in zip(labels, truth, strict=True)]
        content["metrics"][way] = confidence_metrics(sure, right, annotator.settings.seed)
        content["reliability"][way] = reliability(sure, right)
        content["risk_coverage"][way] = np.round(risk_coverage(sure, right), 6).T.tolist()
    if calibration and (coverage := annotator.settings.coverage):
        inside = calibration.inside(opinions, annotator.labels, coverage)
        columns = [annotator.labels.index(true) for true in truth]
        content["coverage"] = coverage
        content["metrics"]["calibrated"] |= set_metrics(inside, columns, annotator.settings.seed)
    return content
