"""What a set of pseudo-labels looks like beside the labelled set, and which round is kept by validation cells."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from scipy import stats

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.compare import headline_of
from cellduality_plugin.evaluation.report import read_metrics
from cellduality_plugin.evaluation.rounds.labelling import Decision

Cell: TypeAlias = tuple[str, str]
"""The task, and the id of a cell."""
ENTROPY_SHARE = 0.5
"""Of the labelled set's entropy: pseudo-labels with less are an alarm."""
UNLIKELY = 0.05
"""A label given to no cell is an alarm where that would happen by chance less often than this."""


def summary(
    decisions: Mapping[Cell, Decision],
    labelled: Counter[str],
    classes: int,
    previous: Mapping[Cell, str],
    truth: Mapping[Cell, str],
) -> dict[str, Any]:
    """Return what the ``decisions`` on the cells of a task look like as JSON holds it; None where nothing was counted.

    ``labelled`` are the labels of labelled cells, of ``classes`` to choose from. Labels are compared with those of an
    earlier round, ``previous``, and with the ``truth`` where that may be counted.
    """
    given = {cell: decision for cell, decision in decisions.items() if decision.label}
    labels = Counter(decision.label for decision in given.values())
    reasons = Counter(decision.reason for decision in decisions.values() if not decision.label)
    flips = [decision.label != previous[cell] for cell, decision in given.items() if cell in previous]
    known = [(decision, truth[cell]) for cell, decision in given.items() if cell in truth]
    right = {
        "accuracy": [decision.label == true for decision, true in known],
        "accuracy_of_votes": [decision.voted == true for decision, true in known],
    }
    return {
        "cells": len(decisions),
        "labelled_by_policy": len(given),
        "reasons": dict(sorted(reasons.items())),
        "answers": sum(decision.answers for decision in decisions.values()),
        "labels": dict(sorted(labels.items())),
        "entropy": entropy(labels, classes),
        "entropy_of_labelled": entropy(labelled, classes),
        "share_of_likeliest": _mean([decision.share for decision in given.values()]),
        "overruled_votes": _mean([decision.voted not in ("", decision.label) for decision in given.values()]),
        "compared": len(flips),
        "flip_rate": _mean(flips),
        **{name: _mean(hits) for name, hits in right.items() if hits},
        "alarms": alarms(labels, labelled, classes) if decisions else [],
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def alarms(labels: Counter[str], labelled: Counter[str], classes: int) -> list[str]:
    """Return what speaks for lock-in: labels that are too much alike, or given to no cell any more."""
    given, found = labels.total(), list[str]()
    if not given:
        return ["no cell was given a label"]
    now, before = entropy(labels, classes), entropy(labelled, classes)
    if now < ENTROPY_SHARE * before:
        found.append(f"labels have an entropy of {now:.2f}, those of labelled cells {before:.2f}")
    missed = {label: (1 - count / labelled.total()) ** given for label, count in labelled.items()}
    gone = sorted(label for label, chance in missed.items() if not labels[label] and chance < UNLIKELY)
    if gone:
        found.append(f"no cell is called {', '.join(gone)}")
    return found


def entropy(counts: Mapping[str, int], classes: int) -> float:
    """Return the entropy of labels as a share of the most that ``classes`` could have, in [0, 1]."""
    if not any(counts.values()) or classes < 2:
        return 0.0
    return float(np.clip(stats.entropy(list(counts.values())) / math.log(classes), 0.0, 1.0)) + 0.0


def sentence(task: str, found: Mapping[str, Any]) -> str:
    """Return one line on the pseudo-labels of a task."""
    why = ", ".join(f"{count} {reason}" for reason, count in found["reasons"].items())
    parts = [f"{found['labelled_by_policy']} of {found['cells']} cells" + (f" ({why})" if why else "")]
    parts.append(f"entropy {found['entropy']:.2f} (labelled cells {found['entropy_of_labelled']:.2f})")
    shares = {"flip_rate": "changed since", "overruled_votes": "other than most votes", "accuracy": "right"}
    parts += [f"{100 * found[key]:.0f} % {what}" for key, what in shares.items() if found.get(key) is not None]
    return f"pseudo-labels of {task}: {', '.join(parts)}"


def read_round(folder: Path) -> dict[str, Any]:
    """Return what rounds.json holds of the round in ``folder``, which is called by its number.

    Its ``metrics`` are the headlines that are better the higher, in [0, 1], of cells like those that train; ``score``
    is their mean. Beside them stands what is known of its pseudo-labels, by task. A CellDualityError if it was not
    evaluated on validation cells, as one checkpoint, or has no headline metric.
    """
    path, pseudo = folder / "validation" / "metrics.json", folder / "pseudo.json"
    content = read_metrics(path)
    columns = [column for column in content["columns"].values() if column["kind"] == "checkpoint"]
    if content["split"] != "validation" or len(columns) != 1:
        what, hint = "not one checkpoint on validation cells", "evaluate one with --split validation"
        raise CellDualityError(what, code="not-a-round", where=str(path), hint=hint)
    metrics = {
        key: float(metric["value"])
        for key, metric in columns[0]["metrics"].items()
        if headline_of(key) and "@" not in key and metric["better"] == "higher" and metric["value"] is not None
    }
    if not metrics:
        hint = "evaluate with --decode headline"
        raise CellDualityError("no headline metric", code="no-headline", where=str(path), hint=hint)
    tasks = json.loads(pseudo.read_text(encoding="utf-8"))["tasks"] if pseudo.is_file() else {}
    labels = {key: {task: own[key] for task, own in tasks.items()} for key in ("flip_rate", "entropy", "alarms")}
    return {"round": int(folder.name), "score": statistics.fmean(metrics.values()), "metrics": metrics, **labels}


def rounds_json(rounds: Sequence[Mapping[str, Any]], patience: int) -> dict[str, Any]:
    """Return what rounds.json holds: which round is ``kept`` (the first of equal ones), and whether it ``goes_on``.

    ``rounds`` are in their order; so many in a row as ``patience`` may do no better than the best before them.
    """
    best = max(rounds, key=lambda each: each["score"])
    since = rounds[-1]["round"] - best["round"]
    why = f"round {best['round']} is best, {best['score']:.3f} on validation cells"
    why += f"; {since} since did no better" if since else ""
    decision = {"kept": best["round"], "why": why, "goes_on": since < patience}
    return {"format": "cellduality-rounds", "version": 1, **decision, "rounds": list(rounds)}
