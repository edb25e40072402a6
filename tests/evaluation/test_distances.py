"""Distances and labels of neighbours: laws of all of them, and what scikit-learn, scipy and POT compute."""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.optimize import linprog
from scipy.spatial.distance import cdist
from scipy.stats import wasserstein_distance
from sklearn.covariance import ledoit_wolf
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import KNeighborsClassifier

from cellduality_plugin.evaluation import distances
from cellduality_plugin.similarity import rank_weighted_jaccard
from tests.refused import refused

seeds = st.integers(0, 2**32 - 1)
DISTANCES = {
    "mmd": partial(distances.mmd, bandwidth=2.0),
    "wasserstein": distances.wasserstein,
    "gromov_wasserstein": distances.gromov_wasserstein,
    "scfid": distances.frechet,
    "scfid_shrunk": partial(distances.frechet, shrinkage=True),
}


def points(seed: int, n: int = 30, dimensions: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dimensions))


@pytest.mark.parametrize("name", DISTANCES)
@given(seeds)
@settings(max_examples=15)
def test_a_sample_is_nowhere_from_itself_and_its_order_changes_no_bit(name: str, seed: int) -> None:
    distance, one, other, rng = DISTANCES[name], points(seed, 14), points(seed + 1, 12), np.random.default_rng(seed)
    [found] = distance(one, other)
    assert 0 <= found <= (2 if name == "mmd" else np.inf)
    assert distance(one, rng.permutation(one)) == pytest.approx([0], abs=1e-9)
    assert distance(rng.permutation(one), rng.permutation(other)) == [found]


@pytest.mark.parametrize(
    ("name", "tolerance"), [("mmd", 1e-9), ("wasserstein", 1e-9), ("scfid", 1e-5), ("scfid_shrunk", 1e-5)]
)
@given(seed=seeds)
@settings(max_examples=10)
def test_a_resample_is_the_distance_of_the_repeated_cells(name: str, tolerance: float, seed: int) -> None:
    distance, one, other = DISTANCES[name], points(seed, 12), points(seed + 1, 9) + 1
    rng = np.random.default_rng(seed)
    counts = distances.resampled(12, rng, 4), distances.resampled(9, rng, 4)
    expected = [
        distance(np.repeat(one, row, axis=0), np.repeat(other, column, axis=0))[0]
        for row, column in zip(*counts, strict=True)
    ]
    np.testing.assert_allclose(distance(one, other, counts), expected, rtol=tolerance, atol=tolerance)


@given(seeds)
def test_mmd_is_that_of_scikit_learns_kernels(seed: int) -> None:
    one, other, sigma = points(seed, 12), points(seed + 1, 7) + 0.5, 1.3
    kernel = partial(rbf_kernel, gamma=1 / (2 * sigma**2))
    expected = kernel(one).mean() + kernel(other).mean() - 2 * kernel(one, other).mean()
    assert distances.mmd(one, other, bandwidth=sigma) == pytest.approx([expected])
    with pytest.raises(ValueError, match="bandwidth 0"):
        distances.mmd(one, other, bandwidth=0.0)


@given(seeds, st.integers(7, 40), st.booleans())
def test_the_frechet_distance_is_that_of_scipys_root_and_scikit_learns_shrinkage(seed, n, shrinkage) -> None:
    one, other = (points(seed + more, n + more, 6) @ points(seed, 6, 6) + more for more in (0, 3))
    ours, theirs = (ledoit_wolf(cells)[0] if shrinkage else np.cov(cells.T) for cells in (one, other))
    apart = one.mean(axis=0) - other.mean(axis=0)
    expected = apart @ apart + np.trace(ours + theirs - 2 * sqrtm(ours @ theirs).real)
    assert distances.frechet(one, other, shrinkage=shrinkage) == pytest.approx([expected], rel=1e-6, abs=1e-6)
    assert distances.frechet(np.zeros((3, 2)), np.ones((4, 2)), shrinkage=True) == [2], "no variance at all"


@given(seeds, st.sampled_from([1, 3, 5]))
def test_nearest_labels_are_scikit_learns_where_votes_do_not_tie_and_depend_on_no_order(seed: int, k: int) -> None:
    real, queries = points(seed), points(seed + 2, 20)
    names, order = np.random.default_rng(seed + 1).choice(list("AB"), 30), np.random.default_rng(seed).permutation(30)
    expected = KNeighborsClassifier(k).fit(real, names).predict(queries)  # two labels and odd k: no tied votes
    assert distances.nearest_labels(cdist(queries, real), names, k) == expected.tolist()
    many = np.round(cdist(queries[:, :1], real[:, :1]))  # many equal distances, and an even k
    shuffled = distances.nearest_labels(many[:, order], names[order], k + 1)
    assert distances.nearest_labels(many, names, k + 1) == shuffled
    nearest = distances.nearest_labels(np.array([[0.3, 0.1, 0.2, 0.4]]), ["A", "B", "A", "B"], 4)
    assert nearest == ["B"], "of a tie the nearest"


def test_median_bandwidth_is_the_median_over_pairs_and_seeded() -> None:
    assert distances.median_bandwidth(np.array([[0.0], [1.0], [10.0]]), seed=0) == 9
    many = points(0, 300)
    drawn = [distances.median_bandwidth(many, seed, at_most=50) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] == pytest.approx(distances.median_bandwidth(many, 0), rel=0.1)


@given(seeds)
def test_dissimilarities_are_those_of_the_reward(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cells = [tuple(rng.permutation(list("ABCDEFGHIJ"))[: rng.integers(1, 9)].tolist()) for _ in range(7)]
    expected = [
        [1 - (rank_weighted_jaccard(one, other) + rank_weighted_jaccard(other, one)) / 2 for other in cells]
        for one in cells
    ]
    np.testing.assert_allclose(distances.dissimilarities(cells), expected, atol=1e-12)


@given(seeds)
def test_resamples_within_are_means_over_pairs_of_different_cells(seed: int) -> None:
    groups = [cdist(cells, cells) for cells in (points(seed, 6), points(seed + 1, 4))]
    counts = [distances.resampled(len(group), np.random.default_rng(seed), 5) for group in groups]
    assert distances.mean_within([]) is None
    assert distances.mean_within([cdist(np.eye(3), np.eye(3))]) == pytest.approx(np.sqrt(2))
    found = distances.resamples_within(groups, counts)
    for place in range(5):
        means = []
        for group, drawn in zip(groups, counts, strict=True):
            cells = np.repeat(np.arange(len(group)), drawn[place])
            apart = [group[i, j] for i in cells for j in cells if i != j]
            means.append(np.mean(apart) if apart else group.sum() / (len(group) * (len(group) - 1)))
        assert found[place] == pytest.approx(np.average(means, weights=[6, 4]))


@given(seeds)
@settings(max_examples=20)
def test_wasserstein_is_the_linear_program_and_on_a_line_scipys(seed: int) -> None:
    one, other = points(seed, 7, 3), points(seed + 1, 5, 3) + 0.5
    rows, columns = np.kron(np.eye(7), np.ones(5)), np.kron(np.ones(7), np.eye(5))
    masses = np.concatenate([np.full(7, 1 / 7), np.full(5, 1 / 5)])
    expected = linprog(cdist(one, other).ravel(), A_eq=np.vstack([rows, columns]), b_eq=masses).fun
    assert distances.wasserstein(one, other) == pytest.approx([expected], abs=1e-6)
    line = wasserstein_distance(one[:, 0], other[:, 0])
    assert distances.wasserstein(one[:, :1], other[:, :1]) == pytest.approx([line], abs=1e-6)


@given(seeds)
@settings(max_examples=20)
def test_gromov_wasserstein_is_the_lower_of_two_ends_of_pots_and_sees_shapes_alone(seed: int) -> None:
    one, other = distances.in_order(points(seed, 5, 3)), distances.in_order(points(seed + 1, 5, 3))
    within, beside, mass = cdist(one, one), cdist(other, other), np.full(5, 0.2)
    starts = (None, ot.emd(mass, mass, cdist(one, other)))
    ends = [ot.gromov.gromov_wasserstein2(within, beside, mass, mass, symmetric=True, G0=start) for start in starts]
    assert distances.gromov_wasserstein(one, other) == max(0, min(ends)), "to the last digit"
    turn, _ = np.linalg.qr(points(seed + 1, 3, 3))
    assert distances.gromov_wasserstein(one, one + 7) == pytest.approx([0], abs=1e-9)
    assert distances.gromov_wasserstein(one, one @ turn) <= distances.gromov_wasserstein(one, 2 * one)
    assert min(distances.gromov_wasserstein(one, 2 * one), distances.gromov_wasserstein(one, points(seed, 12, 5))) > 0


def test_a_missing_solver_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ot", None)
    with refused("not-installed"):
        distances.wasserstein(points(0, 2, 3), points(0, 3, 3))
