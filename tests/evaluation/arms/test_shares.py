from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from cellduality_plugin.evaluation.arms.shares import gap_of, share_of
from cellduality_plugin.evaluation.seeds import Spread

gain = st.floats(-1, 1, allow_nan=False).map(lambda value: round(value, 6))
pairs = st.lists(st.tuples(gain, gain), min_size=2, max_size=8)


def test_a_share_worked_out_by_hand():
    """Gains 1, 2, 3 of 4, 5, 6: means 2 and 5, all variances and the covariance 1, t² / n = 18.5128 / 3 = 6.1709.

    The bounds solve (25 - 6.1709) r² - 2 (10 - 6.1709) r + (4 - 6.1709) = 0.
    """
    share = share_of([1, 2, 3], [4, 5, 6])
    assert share.value == 0.4
    assert share.interval == pytest.approx(sorted(np.roots([18.82906, -2 * 3.82906, -2.17094])), abs=1e-5)


@given(pairs)
def test_both_bounds_are_ratios_that_a_t_test_is_about_to_refuse(found):
    """Fieller's definition, with scipy's test in place of the quadratic equation."""
    gains, whole = map(list, zip(*found, strict=True))
    assume(np.std(whole) > 1e-3)
    assume(abs(np.mean(whole)) > 1e-3)
    share = share_of(gains, whole)
    assert share.value == pytest.approx(np.mean(gains) / np.mean(whole))
    bounds = Spread.of(whole).interval
    assert bounds is not None
    assume(min(map(abs, bounds)) > 1e-4)  # nearer, rounding decides
    assert (share.interval is None) == (bounds[0] < 0 < bounds[1])
    for bound in share.interval or ():
        rest = np.array(gains) - bound * np.array(whole)
        assume(np.std(rest) > 1e-6)
        assert stats.ttest_1samp(rest, 0).pvalue == pytest.approx(0.05, rel=1e-3)


@given(pairs, st.randoms(use_true_random=False))
def test_the_order_of_the_seeds_changes_no_bit(found, random):
    assume(sum(whole for _, whole in found) != 0)
    mixed = found[:]
    random.shuffle(mixed)
    assert share_of(*zip(*found, strict=True)) == share_of(*zip(*mixed, strict=True))


@given(st.lists(gain.map(lambda noise: 0.1 + noise / 1000), min_size=2, max_size=8))
def test_the_oracle_closes_all_of_its_own_gap(whole):
    assert gap_of(Spread.of(whole)) == "certain"
    share = share_of(whole, whole)
    assert share.value == 1
    assert share.interval == pytest.approx((1, 1), abs=1e-6)


def test_a_gap_is_certain_likely_or_none():
    """Of 0.1, 0.02, 0.12 the mean is 0.08 and the deviation 0.053, but 4.3 standard errors are 0.13."""
    assert gap_of(Spread.of([0.1, 0.11, 0.09])) == "certain"
    assert gap_of(Spread.of([0.1, 0.02, 0.12])) == "likely"
    assert gap_of(Spread.of([0.1, -0.02, 0.01])) == "none"
    assert gap_of(Spread.of([-0.1, -0.11, -0.09])) == "none"
    assert gap_of(Spread.of([0.0, 0.0])) == "none"
    assert gap_of(Spread(0.1, math.nan, 1)) == "none"


def test_a_share_of_what_may_be_nothing_has_no_bounds():
    assert str(share_of([0.05, 0.01, 0.06], [0.1, 0.02, 0.12])) == "50 % (no bounds)"
