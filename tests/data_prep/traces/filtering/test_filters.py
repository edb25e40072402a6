"""Every planted candidate is accepted, or rejected for the reason it was planted with; what an instance lacks, too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.examples import Value
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.parsing import join_response
from cellduality_plugin.tasks import TASKS
from data_prep.traces.candidates import Instance, Reply, answers_read, dual_questions, read_instances
from data_prep.traces.filtering import filters
from data_prep.traces.filtering.curation import CANDIDATES, QUESTIONS, REJECTED, ROWS, CurationSettings, curate
from data_prep.traces.filtering.filters import FilterSettings, Reason, Verdict, ill_posed, judge, judge_all, leak
from data_prep.traces.questions import Question
from tests.data_prep.traces import planted
from tests.data_prep.traces.planted import GENES, TRACE, VOCABULARY, bad_replies, candidate, good, wrong_reply

SETTINGS = FilterSettings()
OF_INSTANCES = {"unanswerable", "not_unique", "no_primal"}
GROUPS = [f"{task}/{direction}" for task in sorted(TASKS) for direction in ("primal", "dual")]


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Question]:
    """One question by group."""
    folder = planted.prepared(tmp_path_factory.mktemp("one"), cells=1)
    return {question.group: question for question in planted.questions_in(folder)}


@pytest.fixture(params=GROUPS)
def question(request, questions) -> Question:
    return questions[request.param]


@pytest.fixture
def dual(questions) -> Question:
    return questions["cell_type_annotation/dual"]


def reasons(question: Question, replies: Sequence[Reply | str], settings: FilterSettings = SETTINGS) -> list[str]:
    candidates = [candidate(question, number, reply) for number, reply in enumerate(replies)]
    return [verdict.reason for verdict in judge_all(question, candidates, VOCABULARY, settings)]


def verdict_on(question: Question, reply: Reply | str, settings: FilterSettings = SETTINGS) -> Verdict:
    return judge(question, candidate(question, 0, reply), VOCABULARY, settings)


def test_every_planted_reply_is_named_for_its_reason_and_the_good_one_passes(question):
    made, right = {**bad_replies(question), "": good(question)}, good(question)
    spaced = right.replace("in this", "in  \n this")
    assert reasons(question, [*made.values(), spaced, good(question, "Again.")]) == [*made, "duplicate", "not_best"]


def test_no_reason_is_without_a_plant(questions):
    made = {reason for question in questions.values() for reason in bad_replies(question)}
    assert made | OF_INSTANCES | {"", "duplicate", "not_best"} == set(get_args(Reason))


def test_the_first_reason_in_the_documented_order_is_named(question):
    unclosed, wrong = bad_replies(question)["leak"].text.replace("</answer>", ""), wrong_reply(question)
    untraced = wrong.text.replace(TRACE, "")
    named = reasons(question, [Reply(unclosed, finish="length"), unclosed, untraced, wrong])
    assert named[:3] == ["cut_off", "unclosed", "no_trace"]
    assert named == sorted(named, key=get_args(Reason).index)


def test_without_traces_nothing_is_asked_of_them(question):
    untraced = [bad_replies(question)[name] for name in ("no_trace", "trace_too_short", "trace_too_long", "leak")]
    assert reasons(question, untraced, FilterSettings(traces=False, keep=9)) == [""] * 4


def test_the_best_are_kept_and_of_equals_the_first(dual):
    nearly = dual.response((*dual.gold[:-1], *planted.others(dual, 1)), TRACE)
    right, again, third = good(dual), good(dual, "And again."), good(dual, "A third time.")
    assert reasons(dual, [nearly, right, again]) == ["not_best", "", "not_best"]
    assert reasons(dual, [nearly, right, again, third], FilterSettings(keep=2)) == ["not_best", "", "", "not_best"]


def test_a_list_at_the_threshold_passes_and_one_below_does_not(dual):
    reply = dual.response((*planted.others(dual, 1), *dual.gold[1:]), TRACE)
    score = verdict_on(dual, reply).score
    assert 0 < score < 1
    own = FilterSettings(threshold=1.0, thresholds={"dual": 0.0, dual.group: score})
    higher = FilterSettings(threshold=score + 1e-9)
    found = [verdict_on(dual, reply, settings).reason for settings in (FilterSettings(threshold=score), own, higher)]
    assert found == ["", "", "low_similarity"]


@pytest.mark.parametrize("phrase", [*filters.ANSWER_PHRASES, *filters.LABEL_PHRASES])
def test_what_tells_of_a_known_answer_leaks_whatever_its_case_and_punctuation(phrase):
    written = f"This is so ({phrase.upper().replace(' ', '-')})."
    assert leak(written, "B", VOCABULARY) == phrase
    # Of a list, the question shows a label: it may be spoken of.
    assert leak(written, GENES[:1], VOCABULARY) == (phrase if phrase in filters.ANSWER_PHRASES else "")


@pytest.mark.parametrize(
    ("trace", "answer", "found"),
    [
        *((f"High {tag} low", "B", tag) for tag in ("<ANSWER>", "</Think>", "<br/>", "<|im_end|>", "[INST]")),
        ("G001 < G002 and G003 > G004, so G001<5 and G002>6", "B", ""),
        ("G001 and G002 are high, which only a B cell shows: B.", "B", ""),
        (f"These: {', '.join(GENES[:6])}.", GENES[:12], ""),
        (f"These: {'; '.join(GENES[:7])}.", GENES[:12], "7 genes of the answer"),
        (" ".join(GENES[:4]), GENES[:4], ""),  # four genes are evidence
    ],
)
def test_tags_and_lists_leak_and_reasoning_does_not(trace, answer, found):
    assert leak(trace, answer, VOCABULARY) == found
    assert leak(trace, answer, VOCABULARY, most_written=1.0) == (found if isinstance(answer, str) else "")


WORDS = ["<think>", "</think>", "<answer>", "</answer>", "CD8+ T", "G001 ", "g002,", TRACE, "ground truth"]
TEXTS = st.lists(st.text(max_size=12) | st.sampled_from(WORDS), max_size=12).map("".join)


@given(text=TEXTS, finish=st.sampled_from(["stop", "length", "", "content_filter"]))
def test_no_text_makes_the_filters_raise(questions, text, finish):
    for question in questions.values():
        verdict = verdict_on(question, Reply(text, finish=finish))
        assert verdict.reason in get_args(Reason)
        assert 0 <= verdict.score <= 1
        assert verdict.reason or verdict.answer.value is not None


@given(trace=st.text(max_size=80), answer=st.lists(st.sampled_from([*GENES, "CD8+ T", "smuggled"]), max_size=30))
def test_what_is_accepted_can_be_written_and_read_again(questions, trace, answer):
    lax = FilterSettings(threshold=0.0, min_trace_words=0, min_genes=0.0, max_genes=99, max_strangers=1, max_repeats=1)
    for question in questions.values():
        verdict = verdict_on(question, join_response(" ".join(answer), trace), lax)
        if not verdict.reason:
            again = verdict_on(question, question.response(verdict.answer.value, verdict.answer.trace), lax)
            assert (again.answer.value, again.answer.trace) == (verdict.answer.value, verdict.answer.trace)
            assert (again.reason, again.score) == ("", verdict.score)


def answers_to(primal: Question) -> list[Value]:
    """Return the right answer and a wrong one."""
    return [primal.gold, primal.read(wrong_reply(primal).text, VOCABULARY).value]


@pytest.fixture(params=sorted(TASKS))
def make(request, questions) -> Callable[[Sequence[bool]], Instance]:
    """Return a function from which answers' duals are solved (right answer first) to the instance."""

    def instance(solved: Sequence[bool]) -> Instance:
        primal = questions[f"{request.param}/primal"]
        made = Instance(primal=primal)
        for number, (answer, well) in enumerate(zip(answers_to(primal), solved, strict=False)):
            dual = primal.about(answer, VOCABULARY)
            replies = ["no answer at all", good(dual) if well else wrong_reply(dual)]
            made.replies.setdefault(primal.key, []).append(candidate(primal, number, primal.response(answer, TRACE)))
            made.replies[dual.key] = [candidate(dual, place, reply) for place, reply in enumerate(replies)]
        return made

    return instance


@pytest.mark.parametrize(
    ("solved", "expected"),
    [
        ((True, False), ""), ((False, True), ""), ((True,), ""),
        ((False, False), "unanswerable"), ((False,), "unanswerable"), ((), "unanswerable"),
        ((True, True), "not_unique"),
    ],
)  # fmt: skip
def test_an_instance_is_well_posed_if_one_answer_alone_is_solved_by_its_dual(make, solved, expected):
    instance = make(solved)
    if expected == "not_unique" and not isinstance(instance.primal.gold, str):
        expected = ""
    assert ill_posed(instance, VOCABULARY, SETTINGS) == expected


def test_duals_are_asked_about_each_different_answer_once(make):
    instance = make((True, True))
    primal = instance.primal
    again = candidate(primal, 2, primal.response(primal.gold, "Once more."))
    instance.replies[primal.key] += [again, candidate(primal, 3, "no answer")]
    assert answers_read(instance, primal, VOCABULARY) == answers_to(primal)
    duals = list(dual_questions([instance, Instance(dual=primal)], VOCABULARY))
    assert [dual.key for dual in duals] == [key for key in instance.replies if key != primal.key]
    assert duals[0].key == primal.key.replace("/primal/", "/dual/")


def test_curation_rejects_what_is_not_well_posed_and_does_not_fill_it(tmp_path: Path):
    folder = planted.prepared(tmp_path)
    asked = [question for question in planted.questions_in(folder) if question.direction == "primal"]
    planted.write_candidates(folder, [candidate(question, 0, good(question)) for question in asked])
    primal = [question for question in asked if question.pair.name == "cell_type_annotation"]
    planted.write_candidates(folder, [candidate(q, 1, wrong_reply(q)) for q in primal])
    solved = {primal[0].about(answer, VOCABULARY).key for answer in answers_to(primal[0])}  # both of the first
    solved |= {primal[1].about(primal[1].gold, VOCABULARY).key}  # one of the second, none of the third
    duals = list(dual_questions(read_instances(folder / QUESTIONS, folder / CANDIDATES, TASKS)[0], VOCABULARY))
    replies = [good(dual) if dual.key in solved else wrong_reply(dual) for dual in duals]
    planted.write_candidates(folder, [candidate(dual, 0, reply) for dual, reply in zip(duals, replies, strict=True)])
    curate(folder, TASKS, CurationSettings(well_posed=True, fill=True))
    rejected = {(row["key"], row["candidate"]): row["reason"] for row in read_jsonl(folder / REJECTED)}
    assert [rejected.get((question.key, 0), "") for question in primal] == ["not_unique", "", "unanswerable"]
    assert [rejected[question.key, 1] for question in primal] == ["wrong_label"] * 3
    assert rejected[primal[0].about(primal[0].gold, VOCABULARY).key, 0] == "no_primal"
    rows = [row for row in read_jsonl(folder / ROWS) if row["datasource"] == "cell_type_annotation"]
    assert {row["id"] for row in rows} == {primal[1].example.id}
