"""From findings to the verdict on a reward and what a task is trained with; the arithmetic against libraries."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import f1_score, roc_auc_score

from cellduality_plugin.config import Config
from cellduality_plugin.evaluation.audit import findings, verdicts
from cellduality_plugin.evaluation.audit.answers import AuditSettings, Contender
from cellduality_plugin.evaluation.audit.findings import Counting
from cellduality_plugin.evaluation.audit.run import audit
from tests.evaluation.audit.conftest import ANNOTATION, GENERATION, players

# Multiples of a power of two, as rewards are: ties are common and sums exact.
levels = st.integers(0, 16).map(lambda number: number / 16)
shapes = st.tuples(st.integers(2, 8), st.integers(1, 5))
matrices = shapes.flatmap(lambda shape: arrays(float, shape, elements=levels))
pairs = st.lists(st.tuples(levels, levels), min_size=2, max_size=12)


@given(st.lists(levels, min_size=1, max_size=6), st.lists(levels, min_size=1, max_size=12))
def test_pairwise_auc_is_the_area_under_the_roc_curve(true, wrong):
    theirs = roc_auc_score([1] * len(true) + [0] * len(wrong), true + wrong)
    assert findings.pairwise_auc(np.array(true), np.array(wrong)) == pytest.approx(theirs)
    assert np.isnan(findings.pairwise_auc(np.array(true), np.array([])))


@given(st.lists(st.tuples(st.sampled_from(["B", "T", "NK", None]), levels), min_size=1, max_size=8))
def test_the_product_is_worth_most_of_what_the_group_answered_and_the_majority_where_all_are_paid_the_same(group):
    answers, rewards = zip(*group, strict=True)
    votes = Counter(answer for answer in answers if answer is not None)
    worth = {label: sum(reward for answer, reward in group if answer == label) for label in votes}
    picked, most = findings.product(answers, np.array(rewards)), {n for n in votes if votes[n] == max(votes.values())}
    assert all(findings.product(answers, np.full(len(answers), paid)).keys() == most for paid in (0.0, 0.25))
    assert all(worth[label] == max(worth.values()) for label in picked)
    assert sum(picked.values()) == pytest.approx(float(bool(votes)))
    assert len(set(picked.values())) <= 1


@given(matrices, st.integers(1, 8))
def test_paid_twice_as_much_is_as_flat_and_as_noisy_and_blocks_are_means(rewards, masks):
    blocks, noise = findings.in_blocks(rewards, masks), findings.signal_to_noise([rewards])
    assert blocks.shape == (len(rewards), max(1, rewards.shape[1] // masks))
    assert rewards.min() - 1e-12 <= blocks.min() <= blocks.max() <= rewards.max() + 1e-12
    flat = np.mean([len(set(block)) == 1 for block in rewards.T])
    assert (findings.zero_variance(2 * rewards), findings.zero_variance(rewards, 2.0)) == (flat, 1.0)
    assert findings.signal_to_noise([2 * rewards]) == (None if noise is None else pytest.approx(noise))
    assert findings.signal_to_noise([rewards[:, :1]]) is None


@given(pairs)
def test_the_best_of_a_group_is_at_most_the_truest_and_what_does_not_vary_has_no_rank(found):
    rewards, truth = map(np.array, zip(*found, strict=True))
    same = np.ones(len(truth))
    assert truth.min() - 1e-12 <= findings.best_of_group(rewards, truth) <= truth.max() + 1e-12
    best = findings.best_of_group(truth, truth), findings.best_of_group(same, truth)
    assert best == pytest.approx((truth.max(), truth.mean()))
    assert np.isnan(findings.rank_correlation(same, truth))
    assert np.ptp(truth) == 0 or findings.rank_correlation(truth, truth) == 1


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12))
def test_macro_f1_is_scikit_learn_s_and_by_hand_of_choices_that_labels_share(rows):
    gold, picked = map(np.array, zip(*rows, strict=True))
    theirs = f1_score(gold, picked, labels=np.unique(gold), average="macro", zero_division=0)
    assert findings.shared_macro_f1(np.eye(4)[gold], np.eye(4)[picked]) == pytest.approx(theirs)
    picked = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 0.0]])  # sure and right, undecided, none made
    # B: 2 x 1.5 / (2 + 1.5); T: 2 x 0 / (1 + 0.5)
    assert findings.shared_macro_f1(np.eye(2)[[0, 0, 1]], picked) == pytest.approx((3 / 3.5 + 0) / 2)


def estimate(value, low=None, high=None):
    interval = None if value is None else (value if low is None else low, value if high is None else high)
    return {"value": value, "n": 20, "interval": interval}


CELLS = {"truth": "knn", "auc": estimate(0.93, 0.9, 0.96), "group_gain": estimate(0.05, 0.02, 0.08)}
CELLS |= {"zero_variance": estimate(0.2), "same_answers": estimate(0.1)}
CELLS |= {"best_of_group": estimate(0.8), "mean_of_group": estimate(0.7)}
LABELS = CELLS | {"truth": "correct", "product_accuracy": estimate(0.75), "majority_accuracy": estimate(0.74)}
LABELS |= {"product_gain": estimate(0.01, -0.02, 0.04)}
UNDECIDED, WIDE = estimate(0.0, -0.03, 0.03), estimate(0.02, -0.1, 0.1)
LESS, MORE = estimate(-0.1, -0.2, -0.05), estimate(0.1, 0.05, 0.2)
ALL_FLAT = estimate(1.0)
VERDICTS = {
    "agrees within groups": (LABELS, {}, "agrees", "(AUC 0.93, 0.90 to 0.96)"),
    "agrees by votes": (LABELS, {"product_gain": MORE, "group_gain": UNDECIDED}, "agrees", "(gain +5.0 to +20.0)"),
    "votes are led astray": (LABELS, {"product_gain": LESS}, "harmful", "(gain -20.0 to -5.0)"),
    "the best paid are worse": (LABELS, {"group_gain": LESS, "product_gain": MORE}, "harmful", "80 % of the best paid"),
    "undecided": (LABELS, {"group_gain": UNDECIDED}, "unclear", "75 %"),
    "undecided for want of cells": (LABELS, {"group_gain": WIDE}, "unclear", "audit more"),
    "flat": (CELLS, {"zero_variance": estimate(verdicts.FLAT_GROUPS)}, "no signal", "90 %"),
    "nearly flat": (CELLS, {"zero_variance": estimate(verdicts.FLAT_GROUPS - 0.01)}, "agrees", ""),
    "flat, and harmful besides": (LABELS, {"zero_variance": ALL_FLAT, "product_gain": LESS}, "no signal", "100 %"),
    "chance": (LABELS, {"auc": estimate(0.55, 0.49, 0.6), "product_gain": LESS}, "no signal", "AUC 0.55"),
    "too few cells": (LABELS, {"auc": estimate(0.78, 0.5, 0.97)}, "unclear", "audit more"),
    "contrary": (CELLS, {"auc": estimate(0.2, 0.1, 0.3)}, "harmful", "AUC 0.20"),
    "no wrong answer": (CELLS, {"auc": estimate(None)}, "no signal", ""),
    "cells the wrong way": (CELLS, {"group_gain": LESS}, "harmful", "gain -20.0 to -5.0"),
    "cells without a group": (CELLS, {"group_gain": estimate(None)}, "unclear", "AUC 0.93"),
}


@pytest.mark.parametrize(("finding", "changed", "expected", "number"), VERDICTS.values(), ids=VERDICTS)
def test_a_verdict_follows_from_the_stated_thresholds_and_shows_its_numbers(finding, changed, expected, number):
    grade, words = verdicts.verdict(finding | changed)
    assert (grade, number in words) == (expected, True)


HOW = {"seed": 0, "resamples": 200}


def found(reward, scores, grade="agrees", *, requests=1.0, tokens=100.0, traces=0):
    contender = {"reward": reward, "hidden": None, "traces": traces}
    found = {"task": "t", "reward": Contender(**contender).title, "contender": contender, "score_of_cells": scores}
    cost = {"requests": requests, "prefilled": tokens, "decoded": 0.0}
    return found | {"cost": cost, "verdict": {"grade": grade, "words": f"words of {reward}"}}


def right(of, cells=100):
    """So many of the cells right."""
    return [float(place < of) for place in range(cells)]


OTHERS_RIGHT = [float(place >= 45) for place in range(100)]
"""As many as by ``right(55)``, but of other cells: the difference is paired cell by cell."""
CHOICES = {
    "the best that agrees": ("b", found("a", right(60)), found("b", right(80)), found("c", right(95), "unclear")),
    "the policy's own dual within the noise": (
        "own", found("own", right(79)), found("profile", right(80), requests=0.0, tokens=0.0),
    ),
    "not beyond it": ("profile", found("own", right(60)), found("profile", right(80), requests=0.0, tokens=0.0)),
    "the cheaper": ("b", found("a", right(80), traces=4, tokens=500.0), found("b", right(79))),
    "of two as cheap the better": ("a", found("a", right(80), tokens=100.0 * verdicts.AS_CHEAP), found("b", right(79))),
    "surely better": ("b", found("a", right(50)), found("b", right(55), tokens=900.0)),
    "not surely better": ("a", found("a", right(50)), found("b", OTHERS_RIGHT, tokens=900.0)),
    "cells without an answer do not count": ("a", found("a", [1.0, None]), found("b", [None, 0.5])),
}  # fmt: skip


@pytest.mark.parametrize(("reward", "findings"), [(first, rest) for first, *rest in CHOICES.values()], ids=CHOICES)
def test_of_those_that_agree_one_is_chosen(reward, findings):
    for order in (findings, findings[::-1]):
        assert verdicts.choose(order, Counting(**HOW))["contender"]["reward"] == reward


@given(
    st.lists(st.tuples(st.integers(0, 100), st.sampled_from(["agrees", "unclear", "harmful", "no signal"])), max_size=4)
)
def test_what_is_chosen_agrees_and_where_nothing_does_nothing_is(drawn):
    findings = [found(str(n), right(of), grade) for n, (of, grade) in enumerate(drawn)]
    agreed = [each["contender"] for each in findings if each["verdict"]["grade"] == "agrees"]
    assert verdicts.choose(findings, Counting(0, 20))["contender"] in (agreed or [None])


def naming(reward, alone, voted, requests=0.0):
    return {**found(reward, right(voted), requests=requests), "choice_of_cells": right(alone)}


NAMERS = {
    "alone": (("profile", False, 0.8), naming("profile", 80, 70), naming("posterior", 90, 79, requests=1.0)),
    "alone within a standard error": (
        ("profile", False, 0.5), {**naming("profile", 50, 55), "score_of_cells": OTHERS_RIGHT},
    ),
    "votes beyond it": (("profile", True, 0.6), naming("profile", 50, 60)),
    "the votes of another": (("posterior", True, 0.9), naming("profile", 50, 60), naming("posterior", 99, 90, 1.0)),
}  # fmt: skip


@pytest.mark.parametrize(("expected", "findings"), [(first, rest) for first, *rest in NAMERS.values()], ids=NAMERS)
def test_cells_without_a_label_are_named_by_the_simplest_way_that_is_hardly_worse_than_the_best(expected, findings):
    names = verdicts.namer(findings)
    assert (names["contender"]["reward"], names["votes"], names["accuracy"]) == expected
    assert names["why"].startswith(f"{expected[0]}{' x votes' * expected[1]} {expected[2]:.2f}")
    assert verdicts.namer([found("posterior", right(50))]) is None  # written cells


def test_the_truth_itself_is_no_choice_and_what_was_not_audited_keeps_what_it_has():
    tasks = {name: {"pair": f"own.py:{name}", "reward": "likelihood"} for name in ("t", "u")}
    content = {"settings": HOW, "findings": [found("oracle", right(100)), found("posterior", right(60))]}
    chosen = verdicts.choices(content, Config.read({"tasks": tasks}))
    assert [each["reward"] for each in chosen.values()] == ["posterior", "likelihood"]
    assert "could not be audited" in chosen["u"]["why"]
    chosen = verdicts.choices({**content, "findings": content["findings"][:1]}, Config.read({"tasks": tasks}))
    assert (chosen["t"]["contender"], chosen["t"]["reward"]) == (None, "")


def test_a_task_has_a_table_without_empty_columns_its_verdicts_and_its_choice(data, config):
    settings = AuditSettings(rewards=("oracle", "mine.py:Constant"), cells=6, resamples=20)
    content = audit(data, config, players(), settings)
    tables = {section["findings"][0]["task"]: section["rows"] for section in verdicts.audit_sections(content)}
    assert list(tables) == [ANNOTATION, GENERATION]
    for rows in tables.values():
        assert [row["reward"] for row in rows] == ["oracle", "Constant"]
        assert all(list(row) == list(rows[0]) for row in rows)
        assert all(any(row[column] != "–" for row in rows) for column in rows[0])
    assert tables[ANNOTATION][0]["AUC"] == "1.00 (1.00–1.00)"
    assert {"choice", "product"} == tables[ANNOTATION][0].keys() - tables[GENERATION][0].keys() - {"all masks"}
    content["choice"] = {ANNOTATION: {"reward": "posterior", "why": "it agrees"}, GENERATION: {"reward": "", "why": ""}}
    page = verdicts.audit_markdown(content)
    assert "The labels of 24 validation cells were read (made 24)." in page
    assert all(found["verdict"]["words"] in page for found in content["findings"])
    lines = ["Trained with posterior: it agrees", "Stays out: "]
    assert re.findall(r"^\*\*Choice\.\*\* (.*)$", page, re.MULTILINE) == lines
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == ["cell type annotation", "conditional cell generation"]
