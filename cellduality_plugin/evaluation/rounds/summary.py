"""What a set of pseudo-labels looks like beside the labelled set, and signs that rounds lock in on their own errors."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cellduality_plugin.evaluation.metrics.labels import majority_vote
from cellduality_plugin.evaluation.rounds.labelling import Decision, Opinion

ENTROPY_SHARE = 0.5
"""Of the labelled set's entropy: pseudo-labels with less are an alarm."""
UNLIKELY = 0.05
"""A label that nobody was given is an alarm where that would happen by chance less often than this."""


@dataclass
class Tally:
    """Counts of one task, cell by cell.

    Parameters
    ----------
    labelled
        The labels of the labelled cells.
    classes
        How many labels there are to choose from.
    """

    labelled: Counter[str]
    classes: int
    cells: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    answers: int = 0
    share: float = 0.0
    overruled: int = 0
    compared: int = 0
    flips: int = 0
    right: int = 0
    right_by_votes: int = 0
    with_truth: int = 0

    def add(self, opinion: Opinion, decision: Decision, previous: str | None = None, truth: str | None = None) -> None:
        """Count one cell.

        Parameters
        ----------
        previous
            Its label in an earlier round, if it had one.
        truth
            Its true label, where it may be told.
        """
        self.cells += 1
        self.answers += sum(opinion.votes.values())
        if not decision.label:
            self.reasons[decision.reason] += 1
            return
        self.labels[decision.label] += 1
        self.share += decision.share
        votes = majority_vote([label for label, count in opinion.votes.items() for _ in range(count)])
        self.overruled += bool(votes) and decision.label != votes
        self.compared += previous is not None
        self.flips += previous is not None and previous != decision.label
        if truth is not None:
            self.with_truth += 1
            self.right += decision.label == truth
            self.right_by_votes += votes == truth

    def summary(self) -> dict[str, Any]:
        """Return the counts and shares as JSON holds them; None where nothing was counted."""
        given = self.labels.total()
        told = {"accuracy": self.right, "accuracy_of_votes": self.right_by_votes} if self.with_truth else {}
        return {
            "cells": self.cells,
            "labelled_by_policy": given,
            "reasons": dict(sorted(self.reasons.items())),
            "answers": self.answers,
            "labels": dict(sorted(self.labels.items())),
            "entropy": entropy(self.labels, self.classes),
            "entropy_of_labelled": entropy(self.labelled, self.classes),
            "share_of_likeliest": _ratio(self.share, given),
            "overruled_votes": _ratio(self.overruled, given),
            "compared": self.compared,
            "flip_rate": _ratio(self.flips, self.compared),
            **{name: _ratio(count, self.with_truth) for name, count in told.items()},
            "alarms": self.alarms(),
        }

    def alarms(self) -> list[str]:
        """Return what speaks for lock-in: labels that are too much alike, or that nobody is given any more."""
        given, labelled = self.labels.total(), self.labelled.total()
        if not given or not labelled:
            return [] if given or not self.cells else ["no cell was given a label"]
        found = []
        now, before = entropy(self.labels, self.classes), entropy(self.labelled, self.classes)
        if now < ENTROPY_SHARE * before:
            found.append(f"labels have an entropy of {now:.2f}, those of labelled cells {before:.2f}")
        gone = [
            label
            for label, count in sorted(self.labelled.items())
            if not self.labels[label] and (1 - count / labelled) ** given < UNLIKELY
        ]
        if gone:
            found.append(f"no cell is called {', '.join(gone)}")
        return found


def entropy(counts: Mapping[str, int], classes: int) -> float:
    """Return the entropy of labels as a share of the most that ``classes`` could have, in [0, 1].

    Examples
    --------
    >>> entropy({"B": 5, "T": 5}, 2), entropy({"B": 5}, 2), entropy({}, 2)
    (1.0, 0.0, 0.0)
    """
    total = sum(counts.values())
    if not total or classes < 2:
        return 0.0
    shares = [count / total for count in counts.values() if count]
    return min(1.0, 0.0 - math.fsum(share * math.log(share) for share in shares) / math.log(classes))


def sentence(task: str, found: Mapping[str, Any]) -> str:
    """Return one line on the pseudo-labels of a task."""
    why = ", ".join(f"{count} {reason}" for reason, count in found["reasons"].items())
    parts = [f"{found['labelled_by_policy']} of {found['cells']} cells" + (f" ({why})" if why else "")]
    parts.append(f"entropy {found['entropy']:.2f} (labelled cells {found['entropy_of_labelled']:.2f})")
    for key, what in (
        ("flip_rate", "changed since"),
        ("overruled_votes", "other than most votes"),
        ("accuracy", "right"),
    ):
        if found.get(key) is not None:
            parts.append(f"{100 * found[key]:.0f} % {what}")
    return f"pseudo-labels of {task}: {', '.join(parts)}"


def _ratio(part: float, whole: int) -> float | None:
    return part / whole if whole else None
