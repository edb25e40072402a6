from __future__ import annotations

from dataclasses import replace

from cellduality_plugin.evaluation.page.rollouts import by_section, examples, trace
from cellduality_plugin.evaluation.predictions import Prediction

ROW = Prediction("set/1", "cell_type_annotation", 0, ("G1", "G2"), "B", "<answer>B</answer>", "B", "")


def test_of_each_section_the_best_the_middle_and_the_worst(sections, answered):
    every = list(sections.values())
    found = examples(answered, every)
    assert len(found) == 3 * len(sections)
    for key, own in by_section(answered, every).items():
        ids = {p.id for p in own}
        rewards = [
            each.prediction.reward
            for each in found
            if each.prediction.id in ids and each.prediction.task == own[0].task
        ]
        assert max(p.reward for p in own) in rewards, key
        assert min(p.reward for p in own) in rewards, key


def test_without_sections_rows_go_by_task(answered):
    assert set(by_section(answered, None)) == {p.task for p in answered}


def test_a_trace_shows_what_was_asked_where_the_rows_are_known(sections, answered):
    own = next(p for p in answered if p.task == "perturbation_response_generation")
    shown = trace(own, "x", list(sections.values()))
    assert {"control", "perturbation", "length"} <= set(shown.asked)
    assert trace(own, "x", None).asked == {}


def test_what_stands_on_both_sides_is_marked():
    shown = trace(replace(ROW, rebuilt=("G2", "G3")), "x", None)
    assert shown.unknown == (("G1", False), ("G2", True))
    assert shown.rebuilt == (("G2", True), ("G3", False))
    assert shown.answer == shown.gold == (("B", True),)


def test_what_is_missing_has_a_reason():
    lost = trace(replace(ROW, answer=None, failure="no_answer"), "x", None)
    assert (lost.no_answer, lost.not_rebuilt) == ("no_answer", "the answer could not be read")
    assert trace(replace(ROW, dual_failure="unclosed"), "x", None).not_rebuilt == "unclosed"
    assert trace(replace(ROW, rebuilt=("G1",)), "x", None).not_rebuilt == ""


def test_long_responses_are_cut():
    assert len(trace(replace(ROW, response="x" * 100_000), "x", None).response) < 1300
