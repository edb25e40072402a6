"""What is said of a reward, number by number."""

from __future__ import annotations

import pytest

from cellduality_plugin.evaluation.audit.verdicts import FLAT_GROUPS, verdict


def estimate(value, low=None, high=None):
    return {"value": value, "n": 20, "interval": None if value is None else (low or value, high or value)}


def labels(**changes):
    made = {
        "auc": estimate(0.93, 0.9, 0.96),
        "zero_variance": estimate(0.2),
        "same_answers": estimate(0.1),
        "choice_accuracy": estimate(0.75),
        "policy_accuracy": estimate(0.74),
        "choice_gain": estimate(0.01, -0.05, 0.07),
        "group_gain": estimate(0.1, 0.02, 0.2),
        "best_of_group": estimate(0.8),
        "mean_of_group": estimate(0.7),
    }
    return {**made, **changes}


def cells(**changes):
    made = {
        "auc": estimate(0.93, 0.9, 0.96),
        "zero_variance": estimate(0.2),
        "same_answers": estimate(0.0),
        "truth": "rwjs",
        "group_agreement": estimate(0.3, 0.2, 0.4),
        "group_gain": estimate(0.05, 0.02, 0.08),
    }
    return {**made, **changes}


WORSE = {"choice_accuracy": estimate(0.41), "choice_gain": estimate(-0.33, -0.4, -0.2)}
UNDECIDED = {"group_gain": estimate(0.0, -0.1, 0.1)}

CASES = {
    "agrees": (labels(), "agrees", "AUC 0.93"),
    "raises": (labels(choice_gain=estimate(0.1, 0.05, 0.2)), "agrees", "expected to raise accuracy"),
    "lowers": (
        labels(**WORSE, **UNDECIDED),
        "harmful",
        "right for 41 % of the cells, the policy's for 74 %: training on this reward is expected to lower accuracy",
    ),
    "worse, but right within groups": (labels(**WORSE), "unclear", "80 % of the best paid are right, 70 % of all"),
    "flat": (labels(zero_variance=estimate(0.93)), "no signal", "zero-variance groups 93 % (in 10 % the policy gives"),
    "flat at the threshold": (cells(zero_variance=estimate(FLAT_GROUPS)), "no signal", "zero-variance groups 90 %"),
    "nearly flat": (cells(zero_variance=estimate(FLAT_GROUPS - 0.01)), "agrees", ""),
    "chance": (labels(auc=estimate(0.55, 0.49, 0.6)), "no signal", "does not tell"),
    "too few cells": (labels(auc=estimate(0.78, 0.5, 0.97)), "unclear", "too few cells to tell (AUC 0.78"),
    "contrary": (cells(auc=estimate(0.2, 0.1, 0.3)), "harmful", "prefers wrong answers"),
    "no wrong answer": (cells(auc=estimate(None)), "no signal", "no wrong answer"),
    "cells agree": (cells(), "agrees", "correlation with rwjs is 0.30"),
    "cells undecided": (cells(**UNDECIDED), "unclear", "does not follow the truth"),
    "cells the wrong way": (cells(group_gain=estimate(-0.1, -0.2, -0.05)), "harmful", "less true"),
    "cells without a group": (
        cells(group_gain=estimate(None), group_agreement=estimate(None)), "unclear", "no group",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_verdict_follows_from_the_stated_thresholds(name):
    finding, grade, words = CASES[name]
    said = verdict(finding)
    assert said.grade == grade
    assert words in said.words
