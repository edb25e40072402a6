from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from cellduality_plugin.evaluation.generated import point_rows
from cellduality_plugin.evaluation.page.rollouts import (
    CAUSES,
    by_section,
    examples,
    hollow_cells,
    hollow_labels,
    trace,
    unreadable,
    wrong_labels,
)
from cellduality_plugin.evaluation.predictions import Prediction
from cellduality_plugin.parsing import Failure

LABELS, CELLS = "cell_type_annotation", "conditional_cell_generation"


def labelled(number, answer, similarity, gold="B"):
    row = Prediction(f"set/{number}", LABELS, 0, ("G1", "G2"), gold, f"<answer>{answer}</answer>", answer, "")
    return replace(row, rebuilt=("G1",), similarity=similarity, validity=1.0)


MADE = [
    labelled(0, "B", 0.4),
    labelled(1, "B", 0.2),
    labelled(2, "B", 0.6),
    labelled(3, "T", 0.5),
    labelled(4, "T", 0.1),
    labelled(5, "NK", 0.9, gold="T"),
]


@pytest.fixture(scope="module")
def questions(sections):
    return {key: section.rows for key, section in sections.items()}


def test_of_each_section_the_best_the_middle_and_the_worst(questions, answered):
    found = [each["prediction"] for each in examples(answered, questions)]
    assert len(found) == 3 * len(questions)
    for own in by_section(answered, questions).values():
        rewards = {p.reward for p in found if p in own}
        assert {max(p.reward for p in own), min(p.reward for p in own)} <= rewards
    assert set(by_section(answered, {})) == {p.task for p in answered}


def test_a_trace_shows_what_was_asked_where_the_rows_are_known(questions, answered):
    own = next(p for p in answered if p.task == "perturbation_response_generation")
    assert {"control", "perturbation", "length"} <= set(trace(own, "x", questions)["asked"])
    assert trace(own, "x", {})["asked"] == {}


def test_wrong_labels_by_how_often_and_what_they_are_paid_beside_right_ones():
    [found] = wrong_labels(MADE, {})
    assert (found["wrong"], found["of"], found["right_reward"]) == (3, 6, pytest.approx(0.4))
    assert found["confused"] == [
        {"gold": "B", "answer": "T", "number": 2, "of": 5, "reward": pytest.approx(0.3), "as_right": 0.5},
        {"gold": "T", "answer": "NK", "number": 1, "of": 1, "reward": pytest.approx(0.9), "as_right": 1.0},
    ]
    assert len(wrong_labels(MADE, {}, at_most=1)[0]["confused"]) == 1
    lost = replace(MADE[0], id="set/9", answer=None, failure="no_answer", similarity=0.0)
    assert [(each["wrong"], each["of"]) for each in wrong_labels([lost, MADE[0]], {})] == [(0, 2)]
    assert wrong_labels(MADE, {f"{LABELS}@far": {(p.task, p.id): None for p in MADE}}) == []


def test_a_content_dual_of_a_wrong_label_is_hollow():
    [found] = hollow_labels(MADE, {})
    assert (found["number"], found["of"]) == (2, 4)  # similarity of at least 0.4, the median of right ones
    assert [each["prediction"].id for each in found["traces"]] == ["set/5", "set/3"]
    assert hollow_labels([MADE[5]], {}) == [], "without a right label nothing says what a dual is content with"


def test_a_right_dual_of_a_cell_that_is_another_is_hollow(sections, questions, answered):
    def found(predictions):
        rows = [row for row in point_rows({"GRPO": predictions}, [sections[CELLS]]) if row["column"] == "GRPO"]
        return hollow_cells(predictions, rows, 5, questions)

    own = [p for p in answered if (p.task, p.id) in sections[CELLS].rows]
    assert [(each["number"], each["of"]) for each in found(own)] == [(0, sum(p.similarity == 1 for p in own))]
    cells = {str(p.unknown): p.answer for p in own}
    swapped = [replace(p, answer=cells["T"], similarity=1.0) if p.unknown == "B" else p for p in own]
    [hollow] = found(swapped)
    assert hollow["number"] == sum(p.unknown == "B" for p in own) > 0
    assert {each["title"] for each in hollow["traces"]} == {"asked for B, nearest to T"}
    assert {each["asked"]["cell type"] for each in hollow["traces"]} == {"B"}


def test_causes_are_counted_by_checkpoint_with_the_last_one_s_example():
    def lost(cause, response):
        return replace(MADE[0], answer=None, failure=cause, response=response)

    made = {
        "SFT": [lost("no_answer", "sft"), lost("empty", "nothing"), MADE[0]],
        "GRPO": [
            lost("no_answer", "<b>grpo"),
            lost("no_answer", "later"),
            replace(MADE[1], dual_failure="unclosed", dual_response="long " * 400 + "end"),
        ],
    }
    found = unreadable(made)
    assert [(each["cause"], each["counts"]) for each in found] == [
        ("no_answer", {"SFT": 1, "GRPO": 2}),
        ("dual: unclosed", {"SFT": 0, "GRPO": 1}),
        ("empty", {"SFT": 1, "GRPO": 0}),
    ]
    assert (found[0]["example"], found[0]["where"]) == ("<b>grpo", "GRPO, cell type annotation, set/0")
    assert (found[1]["example"][:5], found[1]["example"][-3:], len(found[1]["example"]) < 700) == ("long ", "end", True)
    assert found[2]["where"].startswith("SFT, ")
    assert unreadable({"SFT": [MADE[0]]}) == unreadable({}) == []
    assert {*get_args(Failure)} - {""} <= CAUSES.keys()
