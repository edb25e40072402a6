"""Responses to a perturbation: who knows the response scores best, who moves nothing worst, the mean in between."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr, ttest_ind
from sklearn.metrics import mean_squared_error

from cellduality_plugin.evaluation.baselines import MEAN_SHIFT, NO_CHANGE, response_baselines
from cellduality_plugin.evaluation.metrics.given import RealCells
from cellduality_plugin.evaluation.metrics.responses import (
    Responses,
    correlation,
    measure,
    squared_error,
    strongest,
    welch_t,
)
from cellduality_plugin.evaluation.predictions import Prediction
from cellduality_plugin.evaluation.sections import Section
from cellduality_plugin.perturbations import CONTROL

RESPONSE, PERTURBED = "perturbation_response_generation", "cytokine IFN-beta"
seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(params=[RESPONSE, f"{RESPONSE}@ood"])
def section(request: pytest.FixtureRequest, sections) -> Section:
    """The seen types, then the held-out one."""
    return sections[request.param]


@pytest.fixture
def made(section: Section, answered) -> list[Prediction]:
    return [p for p in answered if (p.task, p.id) in section.rows]


def of(made, section: Section):
    return measure(Responses.of(made, section.rows, section.reference))


def scores(made, section: Section) -> tuple[float | None, float | None]:
    found = of(made, section)
    return found["shift_correlation"].value, found["shift_error"].value


def test_whoever_knows_the_response_is_best_and_no_change_is_worst(section: Section, made) -> None:
    baselines = response_baselines(section.rows, section.reference)
    found, mean, still = (of(answers, section) for answers in (made, baselines[MEAN_SHIFT], baselines[NO_CHANGE]))
    assert found["shift_error"].value < 0.01
    assert 2 * found["shift_error"].value < mean["shift_error"].value < still["shift_error"].value / 2
    assert 0.95 < found["shift_correlation"].value <= 1
    assert 0.2 < mean["shift_correlation"].value < found["shift_correlation"].value - 0.05
    assert found["delta_correlation"].value > 0.9
    assert found["delta_error"].value < still["delta_error"].value / 2
    for name in ("shift_correlation", "delta_correlation"):
        assert (still[name].value, still[name].note) == (None, "a shift of nothing points nowhere")


def test_genes_are_tested_in_real_cells_of_types_that_have_enough(section: Section, made) -> None:
    held_out = section.reference.held_out
    kept = [place for place, state in enumerate(held_out.states) if state == CONTROL or place % 4 == 0]
    fewer = RealCells(*(tuple(column[place] for place in kept) for column in vars(held_out).values()))
    few = of(made, replace(section, reference=replace(section.reference, held_out=fewer)))
    enough = "types with at least 10 real cells in either state"
    assert (few["delta_error"].value, few["delta_error"].note) == (None, f"nothing to take the mean over {enough}")
    assert few["shift_error"].value is not None


def test_only_readable_answers_of_perturbed_cells_count_in_any_order(section: Section, made) -> None:
    rng, genes = np.random.default_rng(0), section.reference.embedding.genes
    spoiled = [
        replace(p, answer=tuple(rng.permutation(genes)[:8].tolist())) if p.unknown == CONTROL else p for p in made
    ]
    assert scores(spoiled, section) == scores(made, section)
    readable, unread = made[::2], [replace(p, answer=None, failure="no_answer") for p in made[1::2]]
    assert of(unread + readable[::-1], section) == of(readable, section)
    assert scores(unread, section) == scores([], section) == (None, None)


@given(seeds)
def test_over_all_genes_they_are_what_cell_eval_computes(seed: int) -> None:
    """Its ``pearson_delta`` and ``mse_delta``: scipy's and scikit-learn's, of differences of pseudobulks."""
    real, untreated, predicted, asked_from = np.random.default_rng(seed).random((4, 15, 12))
    true, told = real.mean(axis=0) - untreated.mean(axis=0), predicted.mean(axis=0) - asked_from.mean(axis=0)
    assert correlation(true, told) == pytest.approx(pearsonr(told, true)[0], abs=1e-6)
    assert squared_error(true, told) == pytest.approx(mean_squared_error(told, true), abs=1e-6)
    assert (np.abs(true)[strongest(true, 5)] == np.sort(np.abs(true))[:-6:-1]).all(), "either way"
    assert correlation(true, np.zeros(12)) is None, "a shift of nothing points nowhere"


@given(seeds, st.integers(2, 9), st.integers(2, 9))
def test_the_test_is_scipys_of_unequal_variances(seed: int, treated: int, untreated: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = rng.random((treated, 6)), rng.random((untreated, 6))
    expected = ttest_ind(one, other, equal_var=False).statistic
    np.testing.assert_allclose(welch_t(one, other), expected, rtol=1e-6)


def test_genes_without_variance_are_first_if_they_differ_and_last_if_not() -> None:
    perturbed, control = np.array([[1.0, 0.5, 0.3], [1.0, 0.5, 0.9]]), np.array([[0.0, 0.5, 0.2], [0.0, 0.5, 0.4]])
    assert welch_t(perturbed, control)[[0, 1]].tolist() == [np.inf, 0]
    assert welch_t(control, perturbed)[0] == -np.inf
    assert strongest(welch_t(perturbed, control), 3).tolist() == [0, 2, 1]
