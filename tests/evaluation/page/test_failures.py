from __future__ import annotations

from dataclasses import replace

import pytest

from cellduality_plugin.evaluation.page.failures import hollow, unreadable, wrong_labels
from cellduality_plugin.evaluation.predictions import Prediction

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


def test_wrong_labels_by_how_often_and_what_they_are_paid_beside_right_ones():
    [found] = wrong_labels(MADE, None)
    assert (found.wrong, found.of, found.right_reward) == (3, 6, pytest.approx(0.4))
    told = [(each.gold, each.answer, each.count, each.of) for each in found.confused]
    assert told == [("B", "T", 2, 5), ("T", "NK", 1, 1)]
    assert [each.as_right for each in found.confused] == [0.5, 1.0]
    assert found.confused[0].reward == pytest.approx(0.3)
    assert len(wrong_labels(MADE, None, at_most=1)[0].confused) == 1


def test_an_answer_that_could_not_be_read_is_no_wrong_label():
    lost = replace(MADE[0], id="set/9", answer=None, failure="no_answer", similarity=0.0)
    [found] = wrong_labels([lost, MADE[0]], None)
    assert (found.wrong, found.of) == (0, 2)


def test_a_content_dual_of_a_wrong_label_is_hollow():
    [found] = hollow(MADE, None)
    assert (found.count, found.of) == (2, 4)  # similarity of at least 0.4, the median of right ones
    assert [trace.prediction.id for trace in found.traces] == ["set/5", "set/3"]
    assert "similarity 0.400" in found.what


def test_without_a_right_label_nothing_says_what_a_dual_is_content_with():
    assert hollow([MADE[5]], None) == []


def test_a_right_dual_of_a_cell_that_is_another_is_hollow(sections, answered):
    every = list(sections.values())
    own = [p for p in answered if (p.task, p.id) in sections[CELLS].rows]
    right = hollow(own, every)
    assert [(each.count, each.of) for each in right] == [(0, sum(p.similarity == 1 for p in own))]
    cells = {str(p.unknown): p.answer for p in own}
    swapped = [replace(p, answer=cells["T"], similarity=1.0) if p.unknown == "B" else p for p in own]
    [found] = hollow(swapped, every)
    assert found.count == sum(p.unknown == "B" for p in own) > 0
    assert {trace.title for trace in found.traces} == {"asked for B, nearest to T"}
    assert "T" not in {trace.asked.get("cell type") for trace in found.traces}
    assert hollow(swapped, None) == []


def test_causes_are_counted_by_checkpoint_with_the_last_one_s_example():
    def lost(cause, response, dual=""):
        return replace(MADE[0], answer=None, failure=cause, response=response, dual_failure=dual)

    made = {
        "SFT": [lost("no_answer", "sft"), lost("empty", "nothing"), MADE[0]],
        "GRPO": [
            lost("no_answer", "<b>grpo"),
            lost("no_answer", "later"),
            replace(MADE[1], dual_failure="unclosed", dual_response="long " * 400 + "end"),
        ],
    }
    found = unreadable(made)
    assert [(each.direction, each.cause, dict(each.counts)) for each in found] == [
        ("primal", "no_answer", {"SFT": 1, "GRPO": 2}),
        ("dual", "unclosed", {"SFT": 0, "GRPO": 1}),
        ("primal", "empty", {"SFT": 1, "GRPO": 0}),
    ]
    assert (found[0].example, found[0].where) == ("<b>grpo", "GRPO, cell type annotation, set/0")
    assert found[1].example.startswith("long ")
    assert found[1].example.endswith("end")
    assert len(found[1].example) < 700
    assert found[2].where.startswith("SFT, ")
    assert unreadable({"SFT": [MADE[0]]}) == unreadable({}) == []
