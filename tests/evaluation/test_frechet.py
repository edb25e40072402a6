"""scFID against scipy's matrix root and scikit-learn's shrinkage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from sklearn.covariance import ledoit_wolf

from cellduality_plugin.evaluation.distances import resampled
from cellduality_plugin.evaluation.frechet import frechet_distance, frechet_resamples, shrunk_covariance

seeds = st.integers(0, 2**32 - 1)


def points(seed: int, n: int, dimensions: int = 4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, dimensions)) @ rng.normal(size=(dimensions, dimensions))


def textbook(one: np.ndarray, other: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> float:
    apart = one.mean(axis=0) - other.mean(axis=0)
    return float(apart @ apart + np.trace(ours + theirs - 2 * sqrtm(ours @ theirs).real))


@given(seeds)
def test_the_distance_agrees_with_scipys_matrix_root(seed: int) -> None:
    one, other = points(seed, 30), points(seed + 1, 20) + 1
    expected = textbook(one, other, np.cov(one.T), np.cov(other.T))
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(seeds, st.integers(3, 40))
def test_shrinkage_agrees_with_scikit_learn(seed: int, n: int) -> None:
    one, other = points(seed, n, 6), points(seed + 1, n + 3, 6)
    np.testing.assert_allclose(shrunk_covariance(one), ledoit_wolf(one)[0], atol=1e-9)
    expected = textbook(one, other, ledoit_wolf(one)[0], ledoit_wolf(other)[0])
    assert frechet_distance(one, other, shrinkage=True) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("few", [3, 4])
def test_too_few_cells_are_refused_unless_shrinkage_is_asked_for(few: int) -> None:
    many = points(0, 20)
    for pair in ((points(1, few), many), (many, points(1, few))):
        with pytest.raises(ValueError, match=f"{few} cells in 4 dimensions: more cells than dimensions, or shrinkage"):
            frechet_distance(*pair)
        assert frechet_distance(*pair, shrinkage=True) > 0
    assert frechet_distance(points(1, 5), many) > 0
    with pytest.raises(ValueError, match="a covariance of 1 cells"):
        frechet_distance(many, many[:1], shrinkage=True)


@given(seeds, st.booleans())
@settings(max_examples=20)
def test_a_resample_is_the_distance_of_the_repeated_cells(seed: int, shrinkage: bool) -> None:
    one, other, rng = points(seed, 12), points(seed + 1, 9) + 1, np.random.default_rng(seed)
    ours, theirs = resampled(12, rng, 4), resampled(9, rng, 4)
    expected = [
        frechet_distance(np.repeat(one, row, axis=0), np.repeat(other, column, axis=0), shrinkage=shrinkage)
        for row, column in zip(ours, theirs, strict=True)
    ]
    found = frechet_resamples(one, other, ours, theirs, shrinkage=shrinkage)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_equal_cells_without_any_variance_have_the_distance_of_their_points() -> None:
    assert frechet_distance(np.zeros((3, 2)), np.ones((4, 2)), shrinkage=True) == 2
