"""The effect of a perturbation, gene by gene: what the measures say of shifts that are known."""

from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st
from scanpy.tools import rank_genes_groups
from scipy.stats import pearsonr, ttest_ind
from sklearn.metrics import mean_squared_error

from cellduality_plugin.evaluation.embedding import rank_profile
from cellduality_plugin.evaluation.shifts import (
    differential,
    mean_profile,
    mean_shift,
    moved_cell,
    shift_correlation,
    shift_error,
    strongest,
    welch_t,
)

GENES = tuple(f"G{number}" for number in range(12))
vectors = st.lists(st.integers(-100, 100), min_size=12, max_size=12).map(lambda values: np.array(values) / 100)


def test_a_profile_is_the_mean_weight_of_a_gene_in_the_order_of_the_vocabulary() -> None:
    profile = mean_profile([("G1", "G0"), ("G1",), ("G5", "G1")], GENES, top=4)
    first, second, *_ = rank_profile(4)
    assert profile[1] == pytest.approx((2 * first + second) / 3)
    assert profile[0] == pytest.approx(second / 3)
    assert profile[[2, 3, 4, 6, 7]].tolist() == [0] * 5
    with pytest.raises(ValueError, match="no cells"):
        mean_profile([], GENES, top=4)


@given(vectors, vectors)
def test_correlation_is_pearsons_over_the_strongest_genes(real: np.ndarray, predicted: np.ndarray) -> None:
    chosen = strongest(real, 6)
    found = shift_correlation(real, predicted, 6)
    if np.ptp(real[chosen]) == 0 or np.ptp(predicted[chosen]) == 0:
        assert found is None or abs(found) <= 1
    else:
        assert found == pytest.approx(pearsonr(real[chosen], predicted[chosen]).statistic, abs=1e-6)


@given(st.integers(0, 2**32 - 1))
def test_over_all_genes_they_are_what_cell_eval_computes(seed: int) -> None:
    """Its ``pearson_delta`` and ``mse_delta``: scipy's and scikit-learn's, of differences of pseudobulks."""
    rng = np.random.default_rng(seed)
    real, untreated, predicted, asked_from = rng.random((4, 15, 12))
    true, told = real.mean(axis=0) - untreated.mean(axis=0), predicted.mean(axis=0) - asked_from.mean(axis=0)
    assert shift_correlation(true, told, 12) == pytest.approx(pearsonr(told, true)[0], abs=1e-6)
    assert shift_error(true, told, 12) == pytest.approx(mean_squared_error(told, true), abs=1e-6)


@given(vectors)
def test_the_real_shift_is_the_best_there_is_and_nothing_is_judged_by_its_error_alone(real: np.ndarray) -> None:
    assert shift_error(real, real, 5) == 0
    assert shift_error(real, np.zeros(12), 5) == pytest.approx(np.mean(np.sort(real**2)[-5:]))
    assert shift_correlation(real, np.zeros(12), 5) is None
    if np.ptp(real[strongest(real, 5)]) > 0:
        assert shift_correlation(real, 0.5 * real, 5) == pytest.approx(1)
        assert shift_correlation(real, -real, 5) == pytest.approx(-1)


def test_only_the_genes_that_really_move_are_looked_at() -> None:
    real, noise = np.zeros(12), np.zeros(12)
    real[:3], noise[3:] = (0.9, -0.8, 0.7), 1.0
    assert shift_error(real, real + noise, 3) == 0
    assert shift_correlation(real, real + noise, 3) == pytest.approx(1)


def test_a_shift_of_nothing_leaves_a_cell_as_it_is_and_a_strong_one_leads_it() -> None:
    cell = ("G4", "G2", "G9")
    assert moved_cell(cell, np.zeros(12), GENES, top=5) == cell
    shift = np.zeros(12)
    shift[[7, 2]] = 2.0, -2.0
    moved = moved_cell(cell, shift, GENES, top=5)
    assert moved[0] == "G7"
    assert "G2" not in moved
    assert len(moved) == len(cell)


def test_the_mean_shift_learns_from_the_other_types_alone() -> None:
    cells = {
        ("B", "control"): [("G0", "G1")],
        ("B", "drug"): [("G2", "G1")],
        ("T", "control"): [("G5", "G6")],
        ("T", "drug"): [("G2", "G6")],
        ("NK", "drug"): [("G9",)],  # no control to compare with
    }
    alone = mean_shift(cells, "drug", "control", GENES, 4, leave_out="B")
    assert alone is not None
    assert (alone[2], alone[5], alone[0]) == (pytest.approx(1), pytest.approx(-1), 0)
    both = mean_shift(cells, "drug", "control", GENES, 4)
    assert both is not None
    assert (both[2], both[5], both[0]) == (pytest.approx(1), pytest.approx(-0.5), pytest.approx(-0.5))
    assert mean_shift(cells, "heat", "control", GENES, 4) is None
    only_b = {key: found for key, found in cells.items() if key[0] == "B"}
    assert mean_shift(only_b, "drug", "control", GENES, 4, leave_out="B") is None


@given(st.integers(0, 2**32 - 1), st.integers(2, 9), st.integers(2, 9))
def test_the_test_is_scipys_of_unequal_variances(seed: int, treated: int, untreated: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = rng.random((treated, 6)), rng.random((untreated, 6))
    expected = ttest_ind(one, other, equal_var=False).statistic
    np.testing.assert_allclose(welch_t(one, other), expected, rtol=1e-6)
    assert differential(one, other, 3).tolist() == np.argsort(-np.abs(expected))[:3].tolist()


def test_the_genes_are_those_of_scanpy() -> None:
    rng = np.random.default_rng(0)
    cells = rng.random((40, 30))
    cells[:20, :5] += 0.4
    adata = AnnData(cells, obs={"state": ["drug"] * 20 + ["control"] * 20})
    adata.obs["state"] = adata.obs["state"].astype("category")
    rank_genes_groups(adata, "state", groups=["drug"], reference="control", method="t-test", rankby_abs=True)
    expected = [int(name) for name in adata.uns["rank_genes_groups"]["names"]["drug"]]
    assert differential(cells[:20], cells[20:], 30).tolist() == expected
    scores = adata.uns["rank_genes_groups"]["scores"]["drug"]  # kept in single precision
    np.testing.assert_allclose(welch_t(cells[:20], cells[20:])[expected], scores, rtol=1e-6)


def test_genes_without_variance_are_first_if_they_differ_and_last_if_not() -> None:
    perturbed, control = np.array([[1.0, 0.5, 0.3], [1.0, 0.5, 0.9]]), np.array([[0.0, 0.5, 0.2], [0.0, 0.5, 0.4]])
    assert welch_t(perturbed, control)[[0, 1]].tolist() == [np.inf, 0]
    assert welch_t(control, perturbed)[0] == -np.inf
    assert differential(perturbed, control, 3).tolist() == [0, 2, 1]
    with pytest.raises(ValueError, match="a t-test of 2 and 1 cells"):
        differential(perturbed, control[:1], 3)


@given(vectors, vectors)
def test_genes_may_be_chosen_by_something_else_than_the_shift(real: np.ndarray, predicted: np.ndarray) -> None:
    genes = np.array([0, 3, 7])
    assert shift_error(real, predicted, 3, genes) == pytest.approx(np.mean((real - predicted)[genes] ** 2))
    found = shift_correlation(real, predicted, 3, genes)
    assert found == pytest.approx(shift_correlation(real[genes], predicted[genes], 3))
