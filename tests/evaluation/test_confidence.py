"""Calibration error, risk by coverage and conformal sets, against other ways to compute them and by their laws."""

from __future__ import annotations

import itertools
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from cellduality_plugin.evaluation import confidence

SHARES = st.floats(0, 1).map(lambda share: round(share, 3))
ANSWERS = st.lists(st.tuples(SHARES, st.booleans()), min_size=1, max_size=60)


def columns(answers):
    return np.array([sure for sure, _ in answers]), np.array([right for _, right in answers], float)


def test_calibration_error_is_that_of_scikit_learns_curve():
    rng = np.random.default_rng(0)
    sure = rng.random(300)
    right = rng.random(300) < sure**2
    accuracy, means = calibration_curve(right, sure, n_bins=10, strategy="uniform")
    counts, _ = np.histogram(sure, bins=10, range=(0, 1))
    expected = (counts[counts > 0] / 300 * np.abs(accuracy - means)).sum()
    assert confidence.calibration_error(sure, right) == pytest.approx(expected)


@given(ANSWERS)
def test_risk_at_full_coverage_is_the_error(answers):
    sure, right = columns(answers)
    coverage, risk = confidence.risk_coverage(sure, right)
    assert (np.diff(coverage) > 0).all()
    assert ((risk >= -1e-9) & (risk <= 1 + 1e-9)).all()
    assert (coverage[-1], risk[-1]) == pytest.approx((1, 1 - right.mean()))


@settings(max_examples=20)
@given(st.lists(st.tuples(st.sampled_from([0.1, 0.5, 0.9]), st.booleans()), min_size=1, max_size=7))
def test_the_area_is_the_mean_over_all_orders_of_ties(answers):
    """By brute force: every order in which the more sure answer never comes later, one answer after the other."""
    orders = [order for order in itertools.permutations(answers) if all(a >= b for (a, _), (b, _) in pairwise(order))]
    risks = [np.cumsum([not right for _, right in order]) / np.arange(1, len(order) + 1) for order in orders]
    assert confidence.area_under_risk_coverage(*columns(answers)) == pytest.approx(np.mean(risks))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60, unique=True), st.sampled_from([0.5, 0.8, 0.9, 0.95]))
def test_exchangeable_scores_are_covered_as_promised(scores, coverage):
    """Each score in turn is the new one: of exchangeable scores each was as likely to be it."""
    others = [scores[:place] + scores[place + 1 :] for place in range(len(scores))]
    covered = np.mean(np.array(scores) <= [confidence.conformal_threshold(own, coverage) for own in others])
    assert covered >= coverage - 1e-9
    assert covered <= coverage + 1 / len(scores) + 1e-9 or len(scores) < 1 / (1 - coverage)


@given(
    st.lists(st.lists(st.floats(0.01, 1), min_size=4, max_size=4), min_size=1, max_size=20),
    st.lists(st.floats(0, 1), min_size=30, max_size=40),
)
def test_more_coverage_never_takes_a_label_out_of_a_set_and_no_set_is_empty(weights, scores):
    shares = np.array(weights) / np.sum(weights, axis=1, keepdims=True)
    thresholds = [confidence.conformal_threshold(scores, coverage) for coverage in (0.2, 0.6, 0.9)]
    few, more, most = (confidence.label_sets(shares, threshold) for threshold in thresholds)
    assert few.any(axis=1).all()
    assert ((few <= more) & (more <= most)).all()
    assert confidence.label_sets(shares, math.inf).all()
