"""Optimal transport against solvers that share no code with POT."""

from __future__ import annotations

import sys
from itertools import permutations

import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.spatial.distance import cdist
from scipy.stats import wasserstein_distance

from cellduality_plugin.evaluation.distances import in_order, resampled
from cellduality_plugin.evaluation.transport import gromov_wasserstein, wasserstein
from tests.refused import refused

seeds = st.integers(0, 2**32 - 1)


def points(seed: int, n: int, dimensions: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dimensions))


@given(seeds)
@settings(max_examples=20)
def test_wasserstein_is_the_linear_program_and_on_a_line_scipys(seed: int) -> None:
    one, other = points(seed, 7), points(seed + 1, 5) + 0.5
    rows, columns = np.kron(np.eye(7), np.ones(5)), np.kron(np.ones(7), np.eye(5))
    masses = np.concatenate([np.full(7, 1 / 7), np.full(5, 1 / 5)])
    expected = linprog(cdist(one, other).ravel(), A_eq=np.vstack([rows, columns]), b_eq=masses).fun
    assert wasserstein(one, other) == pytest.approx([expected], abs=1e-6)
    line = wasserstein_distance(one[:, 0], other[:, 0])
    assert wasserstein(one[:, :1], other[:, :1]) == pytest.approx([line], abs=1e-6)


@given(seeds)
@settings(max_examples=20)
def test_gromov_wasserstein_is_a_local_end_above_the_best_assignment_and_pots(seed: int) -> None:
    """Of Euclidean distances the best plan of equally many cells is an assignment: all 120 are tried."""
    one, other = in_order(points(seed, 5)), in_order(points(seed + 1, 5))
    within, beside = cdist(one, one), cdist(other, other)
    losses = [np.mean((within - beside[np.ix_(order, order)]) ** 2) for order in permutations(range(5))]
    [found] = gromov_wasserstein(one, other)
    assert min(losses) - 1e-9 <= found
    assert np.abs(np.array(losses) - found).min() < 1e-6, "it ends at some assignment, to the digit"
    mass = np.full(5, 0.2)
    starts = (None, ot.emd(mass, mass, cdist(one, other)))
    ends = [ot.gromov.gromov_wasserstein2(within, beside, mass, mass, symmetric=True, G0=start) for start in starts]
    assert found == max(0, min(ends)), "the lower of two ends of POT's, to the last digit"


@given(seeds)
def test_gromov_wasserstein_sees_shapes_alone(seed: int) -> None:
    one = points(seed, 12)
    turn, _ = np.linalg.qr(points(seed + 1, 3))
    assert gromov_wasserstein(one, one + 7) == pytest.approx([0], abs=1e-9)
    assert gromov_wasserstein(one, one @ turn) <= gromov_wasserstein(one, 2 * one)
    assert min(gromov_wasserstein(one, 2 * one), gromov_wasserstein(one, points(seed, 12, 5))) > 0


def test_a_resample_of_shapes_is_no_worse_an_end_than_that_of_the_repeated_cells() -> None:
    """Both are local ends of one problem: repeated cells may part ways, cells of twice the mass start together."""
    one, other, rng = points(0, 12), points(1, 9), np.random.default_rng(2)
    counts = resampled(12, rng, 8), resampled(9, rng, 8)
    found = gromov_wasserstein(one, other, counts)
    expected = [
        gromov_wasserstein(np.repeat(one, row, axis=0), np.repeat(other, column, axis=0))[0]
        for row, column in zip(*counts, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=0.25)
    assert np.isclose(found, expected, atol=1e-6).mean() > 0.5
    assert gromov_wasserstein(one, one, (counts[0], counts[0])) == pytest.approx(np.zeros(8), abs=1e-9)
    assert (gromov_wasserstein(one, points(1, 9, 2), counts) > 0).all(), "two spaces"


@pytest.mark.parametrize("distance", [wasserstein, gromov_wasserstein])
def test_a_missing_solver_is_told(distance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ot", None)
    with refused("not-installed"):
        distance(points(0, 2), points(0, 3))
