"""What is said of a reward, number by number."""

from __future__ import annotations

import pytest

from cellduality_plugin.evaluation.audit.verdicts import FLAT_GROUPS, verdict


def estimate(value, low=None, high=None):
    return {
        "value": value,
        "n": 20,
        "interval": None if value is None else (value if low is None else low, value if high is None else high),
    }


def made(**changes):
    found = {
        "auc": estimate(0.93, 0.9, 0.96),
        "zero_variance": estimate(0.2),
        "same_answers": estimate(0.1),
        "group_gain": estimate(0.05, 0.02, 0.08),
        "best_of_group": estimate(0.8),
        "mean_of_group": estimate(0.7),
    }
    return {**found, **changes}


def labels(**changes):
    votes = {
        "truth": "correct",
        "product_accuracy": estimate(0.75),
        "majority_accuracy": estimate(0.74),
        "product_gain": estimate(0.01, -0.02, 0.04),
    }
    return made(**{**votes, **changes})


def cells(**changes):
    return made(truth="knn", **changes)


UNDECIDED = estimate(0.0, -0.03, 0.03)
WIDE = estimate(0.02, -0.1, 0.1)
LESS, MORE = estimate(-0.1, -0.2, -0.05), estimate(0.1, 0.05, 0.2)

CASES = {
    "agrees within groups": (labels(), "agrees", "(AUC 0.93, 0.90 to 0.96); 80 % of the best paid"),
    "agrees by votes": (
        labels(product_gain=MORE, group_gain=UNDECIDED), "agrees",
        "votes times reward name 75 % of the cells right, the majority 74 % (gain +5.0 to +20.0)",
    ),
    "votes are led astray": (
        labels(product_gain=LESS), "harmful", "the majority 74 % (gain -20.0 to -5.0): training",
    ),
    "the best paid are worse": (labels(group_gain=LESS, product_gain=MORE), "harmful", "80 % of the best paid"),
    "undecided": (labels(group_gain=UNDECIDED), "unclear", "but not among the policy's own: votes times reward"),
    "undecided for want of cells": (labels(group_gain=WIDE), "unclear", "too few cells to tell: votes times reward"),
    "flat": (labels(zero_variance=estimate(0.93)), "no signal", "zero-variance groups 93 % (in 10 % the policy gives"),
    "flat at the threshold": (cells(zero_variance=estimate(FLAT_GROUPS)), "no signal", "zero-variance groups 90 %"),
    "nearly flat": (cells(zero_variance=estimate(FLAT_GROUPS - 0.01)), "agrees", ""),
    "flat, and harmful besides": (labels(zero_variance=estimate(1.0), product_gain=LESS), "no signal", ""),
    "chance": (labels(auc=estimate(0.55, 0.49, 0.6), product_gain=LESS), "no signal", "does not tell"),
    "too few cells": (labels(auc=estimate(0.78, 0.5, 0.97)), "unclear", "too few cells to tell (AUC 0.78"),
    "contrary": (cells(auc=estimate(0.2, 0.1, 0.3)), "harmful", "prefers wrong answers"),
    "no wrong answer": (cells(auc=estimate(None)), "no signal", "no wrong answer"),
    "cells agree": (cells(), "agrees", "80 % of real cells are of the right condition, near all 70 %"),
    "cells undecided": (cells(group_gain=UNDECIDED), "unclear", "but not among the policy's own: near the best paid"),
    "cells the wrong way": (cells(group_gain=LESS), "harmful", "gain -20.0 to -5.0"),
    "cells without a group": (cells(group_gain=estimate(None)), "unclear", "no answer of the policy could be read"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_verdict_follows_from_the_stated_thresholds(name):
    finding, grade, words = CASES[name]
    said = verdict(finding)
    assert said.grade == grade
    assert words in said.words
