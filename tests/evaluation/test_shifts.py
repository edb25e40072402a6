"""The effect of a perturbation, gene by gene: what the measures say of shifts that are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr

from cellduality_plugin.evaluation.embedding import rank_profile
from cellduality_plugin.evaluation.shifts import (
    mean_profile,
    mean_shift,
    moved_cell,
    shift_correlation,
    shift_error,
    strongest,
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
