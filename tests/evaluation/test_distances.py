from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import KNeighborsClassifier

from cellduality_plugin.evaluation import distances
from cellduality_plugin.evaluation.distances import mmd
from cellduality_plugin.similarity import rank_weighted_jaccard

seeds = st.integers(0, 2**32 - 1)


def points(seed: int, n: int = 30, dimensions: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dimensions))


def labels(seed: int, n: int = 30) -> list[str]:
    return np.random.default_rng(seed + 1).choice(list("ABC"), n).tolist()


@given(seeds, st.sampled_from([1, 3, 5]))
def test_nearest_labels_agree_with_scikit_learn_where_votes_do_not_tie(seed: int, k: int) -> None:
    real, names, queries = points(seed), np.array(labels(seed)), points(seed + 2, 20)
    names = np.where(names == "C", "A", names)  # two labels and odd k: no tied votes
    expected = KNeighborsClassifier(k).fit(real, names).predict(queries)
    assert distances.nearest_labels(cdist(queries, real), names, k).tolist() == expected.tolist()


@given(seeds, st.sampled_from([2, 4, 10]))
def test_knn_does_not_depend_on_the_order_of_real_cells_even_with_ties(seed: int, k: int) -> None:
    real = np.round(points(seed, dimensions=1))  # many equal distances
    names, queries, order = labels(seed), np.round(points(seed + 2, 9, 1)), np.random.default_rng(seed).permutation(30)
    shuffled = [names[place] for place in order]
    one = distances.nearest_labels(cdist(queries, real), names, k)
    assert one.tolist() == distances.nearest_labels(cdist(queries, real[order]), shuffled, k).tolist()


def test_tied_votes_go_to_the_label_with_the_nearest_cell() -> None:
    apart = np.array([[0.3, 0.1, 0.2, 0.4]])
    assert distances.nearest_labels(apart, ["A", "B", "A", "B"], 4).tolist() == ["B"]


def test_ceiling_never_shows_a_cell_itself() -> None:
    # Every cell's nearest other cell has the other label: with itself the value would be 1.
    real = np.array([[0.0], [0.1], [5.0], [5.1]])
    assert distances.knn_ceiling(real, ["A", "B", "A", "B"], k=1) == 0
    assert distances.knn_agreement(real, ["A", "B", "A", "B"], real, ["A", "B", "A", "B"], k=1) == 1


@given(seeds)
def test_ceiling_is_leave_one_out_by_hand(seed: int) -> None:
    real, names = points(seed, 12), labels(seed, 12)
    hits = 0
    for place in range(12):
        others = [other for other in range(12) if other != place]
        rest = [names[other] for other in others]
        hits += distances.knn_agreement(real[others], rest, real[[place]], [names[place]], k=3)
    assert distances.knn_ceiling(real, names, k=3) == pytest.approx(hits / 12)


def test_duplicated_cells_may_still_vote_for_each_other() -> None:
    real = np.array([[0.0], [0.0], [9.0], [9.0]])
    assert distances.knn_ceiling(real, ["A", "A", "B", "B"], k=1) == 1


def test_unreadable_cells_disagree() -> None:
    real, names = np.array([[0.0], [1.0]]), ["A", "B"]
    assert distances.knn_agreement(real, names, real, names, k=1, unreadable=2) == 0.5
    assert distances.knn_agreement(real, names, np.empty((0, 1)), [], k=1, unreadable=2) == 0
    with pytest.raises(ValueError, match="no generated cells"):
        distances.knn_agreement(real, names, np.empty((0, 1)), [], k=1)


@pytest.mark.parametrize("k", [0, 3])
def test_k_must_be_a_number_of_cells_there_are(k: int) -> None:
    with pytest.raises(ValueError, match=f"k = {k}"):
        distances.knn_agreement(np.zeros((2, 1)), ["A", "B"], np.zeros((1, 1)), ["A"], k)
    with pytest.raises(ValueError, match="k = 2"):  # of two cells only one is another
        distances.knn_ceiling(np.zeros((2, 1)), ["A", "B"], 2)


@given(seeds)
def test_mmd_agrees_with_kernels_of_scikit_learn(seed: int) -> None:
    one, other, sigma = points(seed, 12), points(seed + 1, 7) + 0.5, 1.3
    gamma = 1 / (2 * sigma**2)
    expected = (
        rbf_kernel(one, gamma=gamma).mean()
        + rbf_kernel(other, gamma=gamma).mean()
        - 2 * rbf_kernel(one, other, gamma=gamma).mean()
    )
    assert mmd(one, other, sigma) == pytest.approx(expected)
    assert mmd(one, other, sigma) == pytest.approx(mmd(other, one, sigma))


@given(seeds)
def test_mmd_of_a_sample_with_itself_in_any_order_is_nothing(seed: int) -> None:
    one = points(seed)
    assert mmd(one, np.random.default_rng(seed).permutation(one), 2.0) < 1e-12


def test_mmd_grows_with_the_shift_and_is_bounded() -> None:
    one = points(0, 50)
    values = [mmd(one, points(1, 50) + shift, 2.0) for shift in (0.0, 0.5, 1.0, 100.0)]
    assert values == sorted(values)
    assert values[-1] <= 2
    with pytest.raises(ValueError, match="0 and 50 cells"):
        mmd(one[:0], one, 1.0)
    with pytest.raises(ValueError, match="bandwidth 0"):
        mmd(one, one, 0.0)


def test_median_bandwidth_is_the_median_over_pairs_and_seeded() -> None:
    assert distances.median_bandwidth(np.array([[0.0], [1.0], [10.0]]), seed=0) == 9
    many = points(0, 300)
    drawn = [distances.median_bandwidth(many, seed, at_most=50) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] == pytest.approx(distances.median_bandwidth(many, 0), rel=0.1)


def test_spread_is_that_of_a_condition_not_of_the_mixture() -> None:
    cells = np.array([[0.0], [1.0], [100.0], [103.0], [50.0]])
    assert distances.spread(cells, ["A", "A", "B", "B", "C"]) == pytest.approx((1 + 3) / 2)
    assert distances.spread(cells, list("ABCDE")) is None
    collapsed = np.zeros((4, 2))
    assert distances.spread(collapsed, ["A", "A", "B", "B"]) == 0


@given(seeds)
def test_spread_of_one_condition_is_the_mean_of_scipys_distances(seed: int) -> None:
    cells = points(seed, 9)
    assert distances.spread(cells, ["A"] * 9) == pytest.approx(pdist(cells).mean(), abs=1e-6)


def test_spread_counts_a_condition_with_its_cells() -> None:
    cells = np.array([[0.0], [1.0], [100.0], [100.0], [100.0], [100.0]])
    assert distances.spread(cells, ["A", "A", "B", "B", "B", "B"]) == pytest.approx((2 * 1 + 4 * 0) / 6)


@given(seeds)
def test_dissimilarities_are_those_of_the_reward(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cells = [tuple(rng.permutation(list("ABCDEFGHIJ"))[: rng.integers(1, 9)].tolist()) for _ in range(7)]
    expected = [
        [1 - (rank_weighted_jaccard(one, other) + rank_weighted_jaccard(other, one)) / 2 for other in cells]
        for one in cells
    ]
    np.testing.assert_allclose(distances.dissimilarities(cells), expected, atol=1e-12)


def test_diversity_is_that_of_a_condition_and_counts_it_with_its_cells() -> None:
    cells = [("A", "B"), ("A", "B"), ("C",), ("D",), ("E",), ("F",)]
    assert distances.diversity(cells, list("XXYYYY")) == pytest.approx((2 * 0 + 4 * 1) / 6)
    assert distances.diversity(cells, list("ABCDEF")) is None


@given(seeds)
def test_resamples_within_are_means_over_pairs_of_different_cells(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = [cdist(cells, cells) for cells in (points(seed, 6), points(seed + 1, 4))]
    found = distances.resamples_within(groups, np.random.default_rng(seed), 5)
    draws = [distances.resampled(len(group), rng, 5) for group in groups]
    for place in range(5):
        means = []
        for group, counts in zip(groups, draws, strict=True):
            drawn = np.repeat(np.arange(len(group)), counts[place])
            apart = [group[i, j] for i in drawn for j in drawn if i != j]
            means.append(np.mean(apart) if apart else group.sum() / (len(group) * (len(group) - 1)))
        assert found[place] == pytest.approx(np.average(means, weights=[6, 4]))


@given(seeds)
def test_resampled_mmd_is_that_of_the_repeated_cells(seed: int) -> None:
    one, other, rng = points(seed, 8), points(seed + 1, 6), np.random.default_rng(seed)
    ours, theirs = distances.resampled(8, rng, 4), distances.resampled(6, rng, 4)
    expected = [
        mmd(np.repeat(one, row, axis=0), np.repeat(other, column, axis=0), 1.5)
        for row, column in zip(ours, theirs, strict=True)
    ]
    np.testing.assert_allclose(distances.mmd_resamples(one, other, 1.5, ours, theirs), expected, atol=1e-12)
