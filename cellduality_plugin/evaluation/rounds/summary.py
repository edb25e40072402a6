"""What a set of pseudo-labels looks like beside the labelled set, and which round is kept by validation cells."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.compare import headline_of
from cellduality_plugin.evaluation.report import read_metrics
from cellduality_plugin.evaluation.rounds.labelling import Decision, Opinion

ENTROPY_SHARE = 0.5
"""Of the labelled set's entropy: pseudo-labels with less are an alarm."""
UNLIKELY = 0.05
"""A label given to no cell is an alarm where that would happen by chance less often than this."""


@dataclass
class Tally:
    """Counts of one task, cell by cell."""

    labelled: Counter[str]  # the labels of labelled cells,
    classes: int  # of so many to choose from
    labels: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    share: float = 0.0

    def add(self, opinion: Opinion, decision: Decision, previous: str | None = None, truth: str | None = None) -> None:
        """Count one cell, with its label in an earlier round, and its true label where that may be counted."""
        self.counts.update(cells=1, answers=sum(opinion.votes.values()))
        if not decision.label:
            self.reasons[decision.reason] += 1
            return
        self.labels[decision.label] += 1
        self.share += decision.share
        votes = max(opinion.votes, key=opinion.votes.__getitem__, default="")
        self.counts.update(
            overruled=votes not in ("", decision.label),
            compared=previous is not None,
            flips=previous not in (None, decision.label),
            with_truth=truth is not None,
            right=decision.label == truth,
            right_by_votes=votes == truth,
        )

    def summary(self) -> dict[str, Any]:
        """Return the counts and shares as JSON holds them; None where nothing was counted."""
        counts, given = self.counts, self.labels.total()
        right = {"accuracy": counts["right"], "accuracy_of_votes": counts["right_by_votes"]}
        return {
            "cells": counts["cells"],
            "labelled_by_policy": given,
            "reasons": dict(sorted(self.reasons.items())),
            "answers": counts["answers"],
            "labels": dict(sorted(self.labels.items())),
            "entropy": entropy(self.labels, self.classes),
            "entropy_of_labelled": entropy(self.labelled, self.classes),
            "share_of_likeliest": self.share / given if given else None,
            "overruled_votes": counts["overruled"] / given if given else None,
            "compared": counts["compared"],
            "flip_rate": counts["flips"] / counts["compared"] if counts["compared"] else None,
            **{name: count / counts["with_truth"] for name, count in right.items() if counts["with_truth"]},
            "alarms": self.alarms(),
        }

    def alarms(self) -> list[str]:
        """Return what speaks for lock-in: labels that are too much alike, or given to no cell any more."""
        given, labelled, found = self.labels.total(), self.labelled.total(), list[str]()
        if not given or not labelled:
            return [] if given or not self.counts["cells"] else ["no cell was given a label"]
        now, before = entropy(self.labels, self.classes), entropy(self.labelled, self.classes)
        if now < ENTROPY_SHARE * before:
            found.append(f"labels have an entropy of {now:.2f}, those of labelled cells {before:.2f}")
        missed = {label: (1 - count / labelled) ** given for label, count in self.labelled.items()}
        gone = sorted(label for label, chance in missed.items() if not self.labels[label] and chance < UNLIKELY)
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
