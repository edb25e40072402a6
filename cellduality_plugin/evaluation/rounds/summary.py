"""What a set of pseudo-labels looks like beside the labelled set, and signs that rounds lock in on their own errors."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats

from cellduality_plugin.evaluation.metrics.labels import majority_vote
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
    counts: Counter[str] = field(default_factory=Counter)  # see :meth:`add`
    share: float = 0.0

    def add(self, opinion: Opinion, decision: Decision, previous: str | None = None, truth: str | None = None) -> None:
        """Count one cell, with its label in an earlier round, and its true label where that may be counted."""
        self.counts.update(cells=1, answers=sum(opinion.votes.values()))
        if not decision.label:
            self.reasons[decision.reason] += 1
            return
        self.labels[decision.label] += 1
        self.share += decision.share
        votes = majority_vote([label for label, count in opinion.votes.items() for _ in range(count)])
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
        given, labelled = self.labels.total(), self.labelled.total()
        if not given or not labelled:
            return [] if given or not self.counts["cells"] else ["no cell was given a label"]
        found = []
        now, before = entropy(self.labels, self.classes), entropy(self.labelled, self.classes)
        if now < ENTROPY_SHARE * before:
            found.append(f"labels have an entropy of {now:.2f}, those of labelled cells {before:.2f}")
        missed = {label: (1 - count / labelled) ** given for label, count in self.labelled.items()}
        gone = sorted(label for label, chance in missed.items() if not self.labels[label] and chance < UNLIKELY)
        return [*found, f"no cell is called {', '.join(gone)}"] if gone else found


def entropy(counts: Mapping[str, int], classes: int) -> float:
    """Return the entropy of labels as a share of the most that ``classes`` could have, in [0, 1].

    Examples
    --------
    >>> entropy({"B": 5, "T": 5}, 2), entropy({"B": 5}, 2), entropy({}, 2)
    (1.0, 0.0, 0.0)
    """
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
