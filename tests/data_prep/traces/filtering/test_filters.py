"""Every planted candidate is accepted, or rejected for the reason it was planted with."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.parsing import OneOf, join_response
from cellduality_plugin.tasks import TASKS
from data_prep.traces.candidates import Reply
from data_prep.traces.filtering.filters import FilterSettings, Reason, judge, judge_all
from data_prep.traces.filtering.leaks import ANSWER_PHRASES, LABEL_PHRASES, leak
from data_prep.traces.questions import Question
from tests.data_prep.traces.filtering.planted import (
    TRACE,
    VOCABULARY,
    bad_replies,
    candidate,
    good,
    others,
    prepared,
    questions_in,
    spaced,
)

SETTINGS = FilterSettings()
OF_INSTANCES = {"unanswerable", "not_unique", "no_primal"}
GROUPS = [(task, direction) for task in sorted(TASKS) for direction in ("primal", "dual")]


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Question]:
    """One question by task and direction."""
    folder: Path = prepared(tmp_path_factory.mktemp("one cell"), cells=1)
    return {(question.pair.name, question.direction): question for question in questions_in(folder)}


@pytest.fixture(params=GROUPS, ids="/".join)
def question(request, questions) -> Question:
    return questions[request.param]


def reasons(question: Question, replies: list[Reply], settings: FilterSettings = SETTINGS) -> list[str]:
    candidates = [candidate(question, number, reply) for number, reply in enumerate(replies)]
    judged = judge_all(question, reversed(candidates), VOCABULARY, settings)
    assert [kept.candidate for kept, _ in judged] == list(range(len(replies)))
    return [verdict.reason for _, verdict in judged]


def test_every_planted_reply_is_named_for_its_reason_and_the_good_one_passes(question):
    planted = {**bad_replies(question), "": good(question)}
    expected = [*planted, "duplicate", "not_best"]
    replies = [*planted.values(), spaced(good(question)), good(question, "Said otherwise.")]
    assert reasons(question, replies) == expected


def test_no_reason_is_without_a_plant(questions):
    planted = {reason for question in questions.values() for reason in bad_replies(question)}
    assert planted | OF_INSTANCES | {"", "duplicate", "not_best"} == set(get_args(Reason))


def test_the_first_reason_in_the_documented_order_is_named(question):
    order = list(get_args(Reason))
    bad = bad_replies(question)
    text = bad["leak"].text.replace("</answer>", "")
    assert reasons(question, [Reply(text, finish="length"), Reply(text)]) == ["cut_off", "unclosed"]
    nothing = "wrong_label" if isinstance(question.field, OneOf) else "low_similarity"
    untraced = Reply(bad[nothing].text.replace(TRACE, ""))
    assert reasons(question, [untraced]) == ["no_trace"]
    assert order.index("cut_off") < order.index("unclosed") < order.index("no_trace") < order.index(nothing)


def test_without_traces_nothing_is_asked_of_them(question):
    bad = bad_replies(question)
    settings = FilterSettings(traces=False, keep=9)
    untraced = [bad[name] for name in ("no_trace", "trace_too_short", "trace_too_long", "leak")]
    assert reasons(question, untraced, settings) == [""] * 4


def test_the_best_are_kept_and_of_equals_the_first(questions):
    dual = questions["cell_type_annotation", "dual"]
    genes = tuple(dual.gold)
    nearly = Reply(dual.response((*genes[:-1], *others(dual, 1)), TRACE))
    right, again, third = good(dual), good(dual, "And again."), good(dual, "A third time.")
    assert reasons(dual, [nearly, right, again]) == ["not_best", "", "not_best"]
    assert reasons(dual, [nearly, right, again, third], FilterSettings(keep=2)) == ["not_best", "", "", "not_best"]


def test_a_threshold_of_task_and_direction_goes_before_one_of_either(questions):
    dual = questions["cell_type_annotation", "dual"]
    strict = {"dual": 0.3, "cell_type_annotation": 0.4, "cell_type_annotation/dual": 0.2}
    for name, expected in (("cell_type_annotation/dual", 0.2), ("cell_type_annotation", 0.4), ("dual", 0.3), ("", 0.5)):
        assert FilterSettings(thresholds=strict).threshold_of(dual) == expected
        strict.pop(name, None)


def test_a_list_at_the_threshold_passes_and_one_below_does_not(questions):
    dual = questions["cell_type_annotation", "dual"]
    genes = tuple(dual.gold)
    reply = Reply(dual.response((*others(dual, 1), *genes[1:]), TRACE))
    score = judge(dual, reply, VOCABULARY, SETTINGS).score
    assert 0 < score < 1
    assert judge(dual, reply, VOCABULARY, FilterSettings(threshold=score)).accepted
    assert judge(dual, reply, VOCABULARY, FilterSettings(threshold=min(1, score + 1e-9))).reason == "low_similarity"


class TestLeaks:
    @pytest.mark.parametrize("phrase", ANSWER_PHRASES)
    def test_what_tells_of_a_known_answer_is_found_whatever_its_case_and_punctuation(self, phrase):
        written = phrase.upper().replace(" ", "-")
        assert leak(f"This is so ({written}).", "B", VOCABULARY) == phrase
        assert leak(f"This is so ({written}).", ("G1",), VOCABULARY) == phrase

    @pytest.mark.parametrize("phrase", LABEL_PHRASES)
    def test_a_label_that_the_question_shows_may_be_spoken_of(self, phrase):
        assert leak(f"By the {phrase}, it follows.", "B", VOCABULARY) == phrase
        assert leak(f"By the {phrase}, it follows.", ("G1",), VOCABULARY) == ""

    @pytest.mark.parametrize("tag", ["<ANSWER>", "</Think>", "<br/>", "<|im_end|>", "[INST]"])
    def test_tags_are_found(self, tag):
        assert leak(f"High in G1 {tag} low in G2", "B", VOCABULARY) == tag

    def test_comparisons_are_no_tags(self):
        assert leak("G1 < G2 and G3 > G4, so G1<5 and G2>6", "B", VOCABULARY) == ""

    def test_naming_the_label_one_concludes_on_is_no_leak(self):
        assert leak("G1 and G2 are high, which only a B cell shows: B.", "B", VOCABULARY) == ""

    def test_writing_out_more_than_half_of_the_genes_is(self):
        answer = tuple(f"G{number}" for number in range(12))
        assert leak("These: " + ", ".join(answer[:6]) + ".", answer, VOCABULARY) == ""
        assert leak("These: " + ", ".join(answer[:7]) + ".", answer, VOCABULARY) == "7 genes of the answer"
        assert leak("These: " + "; ".join(answer[:7]) + ".", answer, VOCABULARY, most_written=1.0) == ""
        assert leak(" ".join(answer[:4]), answer[:4], VOCABULARY) == "", "four genes are evidence"


TEXTS = st.lists(
    st.one_of(
        st.text(max_size=12),
        st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "B", "G1 ", "g2,", TRACE, "ground truth"]),
    ),
    max_size=12,
).map("".join)


@given(text=TEXTS, finish=st.sampled_from(["stop", "length", "", "content_filter"]))
def test_no_text_makes_the_filters_raise(questions, text, finish):
    for question in questions.values():
        verdict = judge(question, Reply(text, finish=finish), VOCABULARY, SETTINGS)
        assert verdict.reason in get_args(Reason)
        assert 0 <= verdict.score <= 1
        assert verdict.accepted <= (verdict.value is not None)


@given(trace=st.text(max_size=80), answer=st.lists(st.sampled_from([*VOCABULARY.genes, "B", "smuggled"]), max_size=30))
def test_what_is_accepted_can_be_written_and_read_again(questions, trace, answer):
    lax = FilterSettings(threshold=0.0, min_trace_words=0, min_genes=0.0, max_genes=99, max_strangers=1, max_repeats=1)
    for question in questions.values():
        reply = Reply(join_response(" ".join(answer), trace))
        verdict = judge(question, reply, VOCABULARY, lax)
        if verdict.accepted:
            again = judge(question, Reply(question.response(verdict.value, verdict.trace)), VOCABULARY, lax)
            assert again == verdict
