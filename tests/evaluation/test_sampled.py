from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.evaluation.predictions import Prediction
from cellduality_plugin.evaluation.sampled import majority_vote, sampled_metrics, truth_metrics

ANNOTATION = "cell_type_annotation"


def drawn(row: str, sample: int, answer: str | None, gold: str | None, **fields) -> Prediction:
    failure = "" if answer else "no_answer"
    return Prediction(row, ANNOTATION, sample, ("G1",), gold, "", answer, failure, drawn=True, **fields)


@given(st.lists(st.sampled_from(["", "B", "T"]), max_size=9))
def test_a_majority_vote_is_of_those_that_can_be_read(answers: list[str]) -> None:
    winner = majority_vote(answers)
    if any(answers):
        assert winner
        assert answers.count(winner) == max(answers.count("B"), answers.count("T"))
    else:
        assert winner == ""


def test_metrics_of_planted_draws(sections) -> None:
    answers = {"1": ("B", ["B", "B", "T"]), "2": ("T", ["B", None, "T"]), "3": ("NK", [None, None, None])}
    made = [drawn(r, s, a, gold) for r, (gold, told) in answers.items() for s, a in enumerate(told)]
    made.append(drawn("4", 0, "B", None, similarity=1.0))  # no gold: it counts for the dual alone
    found = sampled_metrics(made, sections[ANNOTATION])
    assert found["sampled_accuracy"].value == pytest.approx(3 / 9)
    assert found["majority_accuracy"].value == pytest.approx(1 / 3), "the first of T and B was B"
    precision = {"B": 2 / 3, "T": 1 / 2}
    assert found["sampled_macro_f1"].value == pytest.approx(
        (2 / (1 / precision["B"] + 3 / 2) + 2 / (1 / precision["T"] + 3)) / 3
    )
    assert found["sampled_dual_similarity"].value == pytest.approx(0.1)
    assert (found["sampled_accuracy"].n, found["majority_accuracy"].n) == (9, 3)
    assert found["sampled_accuracy"].note == "3 drawn a cell"


def test_draws_of_one_cell_are_one_piece_of_evidence(sections) -> None:
    rng = np.random.default_rng(0)
    right = rng.random(60) < 0.5
    one, ten = (
        [drawn(str(row), sample, "B", "B" if ok else "T") for row, ok in enumerate(right) for sample in range(count)]
        for count in (1, 10)
    )
    widths = [
        float(np.diff(sampled_metrics(made, sections[ANNOTATION])["sampled_accuracy"].interval)[0])
        for made in (one, ten)
    ]
    assert widths[0] == widths[1] > 0.1


def test_the_order_of_draws_changes_nothing(sections) -> None:
    rng = np.random.default_rng(0)
    kinds = ("B", "T", "NK", None)
    made = [
        drawn(str(r), s, kinds[rng.integers(4)], kinds[rng.integers(3)] and "B") for r in range(20) for s in range(3)
    ]
    shuffled = [made[place] for place in rng.permutation(len(made))]
    assert sampled_metrics(made, sections[ANNOTATION]) == sampled_metrics(shuffled, sections[ANNOTATION])


def test_a_dual_that_is_told_the_truth(sections) -> None:
    yardstick = sections[ANNOTATION].yardstick
    made = [
        drawn("1", 0, "B", "T", similarity=0.9, truth_similarity=0.2),
        drawn("1", 1, "B", "T", similarity=0.9),
        drawn("2", 0, None, "T", truth_similarity=0.4),
    ]
    metric = truth_metrics(made, yardstick)["dual_given_truth"]
    assert (metric.value, metric.n) == (pytest.approx(0.3), 2)
    assert truth_metrics([drawn("1", 0, "B", None)], yardstick) == {}
