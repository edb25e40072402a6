"""Optimal transport against solvers that share no code with POT."""

from __future__ import annotations

import sys
from itertools import permutations

import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment, linprog
from scipy.spatial.distance import cdist
from scipy.stats import wasserstein_distance

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.distances import in_order, resampled
from cellduality_plugin.evaluation.transport import (
    gromov_wasserstein,
    gromov_wasserstein_resamples,
    wasserstein,
    wasserstein_resamples,
)

seeds = st.integers(0, 2**32 - 1)


def points(seed: int, n: int, dimensions: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dimensions))


@given(seeds)
def test_wasserstein_of_equally_many_cells_is_the_best_assignment(seed: int) -> None:
    one, other = points(seed, 20), points(seed + 1, 20) + 0.5
    cost = cdist(one, other)
    assert wasserstein(one, other) == pytest.approx(cost[linear_sum_assignment(cost)].mean(), abs=1e-6)


@given(seeds)
@settings(max_examples=20)
def test_wasserstein_of_any_sizes_is_the_linear_program(seed: int) -> None:
    one, other = points(seed, 7), points(seed + 1, 5) + 0.5
    rows, columns = np.kron(np.eye(7), np.ones(5)), np.kron(np.ones(7), np.eye(5))
    masses = np.concatenate([np.full(7, 1 / 7), np.full(5, 1 / 5)])
    expected = linprog(cdist(one, other).ravel(), A_eq=np.vstack([rows, columns]), b_eq=masses).fun
    assert wasserstein(one, other) == pytest.approx(expected, abs=1e-6)


@given(seeds)
def test_wasserstein_on_a_line_is_scipys(seed: int) -> None:
    one, other = points(seed, 9, 1), points(seed + 1, 14, 1)
    assert wasserstein(one, other) == pytest.approx(wasserstein_distance(one[:, 0], other[:, 0]), abs=1e-6)


def test_a_resample_is_the_distance_of_the_repeated_cells() -> None:
    one, other, rng = points(0, 8), points(1, 6), np.random.default_rng(2)
    ours, theirs = resampled(8, rng, 5), resampled(6, rng, 5)
    found = wasserstein_resamples(one, other, ours, theirs)
    expected = [
        wasserstein(np.repeat(one, row, axis=0), np.repeat(other, column, axis=0))
        for row, column in zip(ours, theirs, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_a_resample_of_shapes_is_no_worse_an_end_than_that_of_the_repeated_cells() -> None:
    """Both are local ends of one problem: repeated cells may part ways, cells of twice the mass start together."""
    one, other, rng = points(0, 12), points(1, 9), np.random.default_rng(2)
    ours, theirs = resampled(12, rng, 8), resampled(9, rng, 8)
    found = gromov_wasserstein_resamples(one, other, ours, theirs)
    expected = [
        gromov_wasserstein(np.repeat(one, row, axis=0), np.repeat(other, column, axis=0))
        for row, column in zip(ours, theirs, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=0.25)
    assert np.isclose(found, expected, atol=1e-6).mean() > 0.5
    assert gromov_wasserstein_resamples(one, one, ours, ours) == pytest.approx(0, abs=1e-9)
    apart = gromov_wasserstein_resamples(one, points(1, 9, 2), ours[:1], theirs[:1])
    assert apart > 0, "spaces of different dimensions"


def loss(within: np.ndarray, beside: np.ndarray, order: tuple[int, ...]) -> float:
    return float(np.mean((within - beside[np.ix_(order, order)]) ** 2))


@given(seeds)
@settings(max_examples=20)
def test_gromov_wasserstein_is_a_local_end_above_the_best_of_all_assignments(seed: int) -> None:
    """Of Euclidean distances the best plan of equally many cells is an assignment: all 120 are tried."""
    one, other = points(seed, 5), points(seed + 1, 5)
    within, beside = cdist(one, one), cdist(other, other)
    losses = np.sort([loss(within, beside, order) for order in permutations(range(5))])
    found = gromov_wasserstein(one, other)
    assert losses[0] - 1e-9 <= found
    # It ends at a vertex, hence at the loss of some assignment, to the digit.
    assert np.abs(losses - found).min() < 1e-6


@given(seeds)
@settings(max_examples=20)
def test_gromov_wasserstein_is_pots_from_its_own_start_or_lower(seed: int) -> None:
    one, other = in_order(points(seed, 15)), in_order(points(seed + 1, 12))
    theirs = ot.gromov.gromov_wasserstein2(cdist(one, one), cdist(other, other), loss_fun="square_loss")
    assert gromov_wasserstein(one, other) <= theirs + 1e-6


@given(seeds)
def test_gromov_wasserstein_sees_shapes_alone(seed: int) -> None:
    one = points(seed, 12)
    turn, _ = np.linalg.qr(points(seed + 1, 3))
    assert gromov_wasserstein(one, one + 7) == pytest.approx(0, abs=1e-9)
    assert gromov_wasserstein(one, 2 * one) > 0.1
    assert gromov_wasserstein(one, points(seed, 12, 5)) > 0  # spaces of different dimensions
    assert gromov_wasserstein(one, one @ turn) <= gromov_wasserstein(one, 2 * one)


@pytest.mark.parametrize("distance", [wasserstein, gromov_wasserstein])
def test_empty_samples_and_a_missing_solver_are_told(distance, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="0 to 3 cells"):
        distance(points(0, 0), points(0, 3))
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(CellDualityError, match="POT"):
        distance(points(0, 2), points(0, 3))
