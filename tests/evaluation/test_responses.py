"""Responses to a perturbation: who knows the response scores best, who moves nothing worst, the mean in between."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cellduality_plugin.evaluation import measures
from cellduality_plugin.evaluation.predictions import Prediction
from cellduality_plugin.evaluation.real_cells import RealCells
from cellduality_plugin.evaluation.responses import (
    CONTROL,
    MEAN_SHIFT,
    NO_CHANGE,
    real_response_metrics,
    response_baselines,
    response_metrics,
)
from cellduality_plugin.evaluation.sections import Section

RESPONSE = "perturbation_response_generation"
PERTURBED = "cytokine IFN-beta"


@pytest.fixture(params=[RESPONSE, f"{RESPONSE}@ood"])
def section(request: pytest.FixtureRequest, sections) -> Section:
    """The seen types, then the held-out one."""
    return sections[request.param]


@pytest.fixture
def made(section: Section, answered) -> list[Prediction]:
    return [p for p in answered if (p.task, p.id) in section.rows]


def scores(made, section: Section) -> tuple[float | None, float | None]:
    found = response_metrics(made, section.rows, section.yardstick)
    return found["shift_correlation"].value, found["shift_error"].value


def test_whoever_knows_the_response_is_best_and_no_change_is_worst(section: Section, made) -> None:
    baselines = response_baselines(section.rows, section.yardstick)
    correlation, error = scores(made, section)
    mean_correlation, mean_error = scores(baselines[MEAN_SHIFT], section)
    still_correlation, still_error = scores(baselines[NO_CHANGE], section)
    assert still_correlation is None
    assert 0.95 < correlation <= 1
    assert 0 <= error < 0.01
    assert 0.2 < mean_correlation < correlation - 0.05
    assert 2 * error < mean_error < still_error / 2


def test_other_real_cells_reach_the_ceiling_where_there_are_any(sections, answered) -> None:
    found = real_response_metrics(sections[RESPONSE].yardstick)
    assert found["shift_correlation"].value > 0.9
    assert found["shift_error"].value < 0.02  # a dozen cells of each kind: what is left is noise
    assert found["delta_correlation"].value > 0.9


def test_where_there_are_no_others_one_half_is_held_against_the_other(sections) -> None:
    found = real_response_metrics(sections[f"{RESPONSE}@ood"].yardstick)
    assert found["shift_correlation"].value > 0.9
    assert found["shift_error"].value < 0.04
    assert all("half" in metric.note for metric in found.values())


def test_genes_are_tested_in_real_cells_of_types_that_have_enough(section: Section, made) -> None:
    found = response_metrics(made, section.rows, section.yardstick)
    still = response_baselines(section.rows, section.yardstick)[NO_CHANGE]
    nothing = response_metrics(still, section.rows, section.yardstick)
    assert found["delta_correlation"].value > 0.9
    assert found["delta_error"].value < nothing["delta_error"].value / 2
    assert nothing["delta_correlation"].value is None
    assert "Welch t, real perturbed against real control cells" in found["delta_error"].estimator
    held_out = section.yardstick.held_out
    kept = [place for place, state in enumerate(held_out.states) if state == CONTROL or place % 4 == 0]
    fewer = RealCells(*(tuple(column[place] for place in kept) for column in vars(held_out).values()))
    few = response_metrics(made, section.rows, replace(section.yardstick, held_out=fewer))
    assert few["delta_error"].value is None
    enough = "types with at least 10 real cells in either state"
    assert few["delta_error"].note == f"nothing to take the mean over {enough}"
    assert few["shift_error"].value is not None


def test_intervals_hold_the_value_within_the_range(section: Section, made) -> None:
    for metric in response_metrics(made, section.rows, section.yardstick).values():
        low, high = metric.interval
        assert (-1 if metric.best else 0) <= low <= metric.value <= high
        assert low < high
        assert metric.note == "interval of 100 resamples within types, centred"


def test_metrics_tell_what_they_are_the_mean_of(section: Section, made) -> None:
    kinds = {"B cell"} if "@" in section.key else {"NK cell", "T cell"}
    for name, metric in response_metrics(made, section.rows, section.yardstick).items():
        assert metric.n == len(kinds)
        if name.startswith("shift"):
            assert metric.estimator.endswith("mean over cell types, 20 genes of the largest real shift")
        assert metric.space == "1 - log(rank)/log(9)"
        assert (metric.better, metric.best) == (("higher", 1.0) if name.endswith("correlation") else ("lower", 0.0))
    still = response_baselines(section.rows, section.yardstick)[NO_CHANGE]
    assert response_metrics(still, section.rows, section.yardstick)["shift_correlation"].note


def test_what_is_said_of_untreated_cells_has_no_say(section: Section, made) -> None:
    rng = np.random.default_rng(0)
    genes = section.yardstick.embedding.genes
    spoiled = [
        replace(p, answer=tuple(rng.permutation(genes)[:8].tolist())) if p.unknown == CONTROL else p for p in made
    ]
    assert scores(spoiled, section) == scores(made, section)


def test_answers_that_cannot_be_read_are_left_out_and_order_is_of_no_matter(section: Section, made) -> None:
    readable, unread = made[::2], [replace(p, answer=None, failure="no_answer") for p in made[1::2]]
    assert scores(unread + readable[::-1], section) == scores(readable, section)
    assert scores(unread, section) == (None, None)
    assert scores([], section) == (None, None)


def test_a_response_of_the_wrong_genes_points_the_wrong_way(section: Section, made) -> None:
    """Whoever lets the untreated cell stand and puts strangers in front gets no credit for moving much."""
    block = {"0": "T", "1": "B", "2": "NK"}
    strangers = {"T": (24, 25, 26), "B": (0, 1, 2), "NK": (12, 13, 14)}
    wrong = []
    for p in made:
        control = section.rows[p.task, p.id].inputs["control"]
        added = tuple(f"G{place}" for place in strangers[block[p.id[5]]])
        wrong.append(replace(p, answer=(*control[:5], *added) if p.unknown == PERTURBED else p.answer))
    best, _ = scores(made, section)
    found, error = scores(wrong, section)
    assert found < best - 0.3
    assert error > 0.05


def test_baselines_answer_every_row_with_a_whole_cell_of_its_own(section: Section) -> None:
    baselines = response_baselines(section.rows, section.yardstick)
    assert list(baselines) == [NO_CHANGE, MEAN_SHIFT]
    for made in baselines.values():
        assert [(p.task, p.id) for p in made] == list(section.rows)
        for p in made:
            control = section.rows[p.task, p.id].inputs["control"]
            assert len(set(p.answer)) == len(p.answer) == p.listed == len(control)
            assert set(p.answer) <= set(section.yardstick.embedding.genes)
        assert measures.cell_metrics(made, section.yardstick)["validity"].value == 1
    for p in baselines[NO_CHANGE]:
        assert p.answer == section.rows[p.task, p.id].inputs["control"]
    for p in baselines[MEAN_SHIFT]:
        assert ("R0" in p.answer) == (p.unknown == PERTURBED)


def test_the_mean_shift_comes_from_labelled_training_cells_of_other_types(sections) -> None:
    section = sections[RESPONSE]

    def moved(train) -> dict[str, tuple[str, ...]]:
        yardstick = replace(section.yardstick, train=train)
        return {p.id: p.answer for p in response_baselines(section.rows, yardstick)[MEAN_SHIFT]}

    train = section.yardstick.train
    known = moved(train)
    # unlabelled cells could hold anything
    genes = tuple(own if shown else ("G0", "G1") for own, shown in zip(train.genes, train.labelled, strict=True))
    assert moved(replace(train, genes=genes)) == known
    # and so could the cells of the very type: only the other type's answers change
    genes = tuple(("G0", "G1") if kind == "T cell" else own for own, kind in zip(train.genes, train.types, strict=True))
    spoiled = moved(replace(train, genes=genes))
    changed = {name for name, answer in spoiled.items() if answer != known[name]}
    kinds = dict(zip(section.yardstick.held_out.ids, section.yardstick.held_out.types, strict=True))
    assert {kinds[name] for name in changed} == {"NK cell"}


def test_nothing_known_of_a_perturbation_leaves_the_cell_as_it_was(sections) -> None:
    section = sections[f"{RESPONSE}@ood"]
    train = section.yardstick.train
    untreated = replace(train, states=tuple(CONTROL for _ in train.states))
    baselines = response_baselines(section.rows, replace(section.yardstick, train=untreated))
    told = {p.id: p.answer for p in baselines[NO_CHANGE] if p.unknown == PERTURBED}
    assert {p.id: p.answer for p in baselines[MEAN_SHIFT] if p.unknown == PERTURBED} == told


def test_an_answer_is_asked_to_be_the_cell_of_its_row(sections, answered) -> None:
    """A perturbed B cell among B cells is right, among untreated ones wrong: type and state both count."""
    section = sections[f"{RESPONSE}@ood"]
    made = [p for p in answered if (p.task, p.id) in section.rows]
    assert measures.cell_metrics(made, section.yardstick)["knn_agreement_5"].value == 1
    still = response_baselines(section.rows, section.yardstick)[NO_CHANGE]
    assert measures.cell_metrics(still, section.yardstick)["knn_agreement_5"].value == 0.5
