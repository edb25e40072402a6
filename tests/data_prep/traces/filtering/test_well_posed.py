"""An instance is kept if its dual tells one answer from the others, and only then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cellduality_plugin.examples import Value
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.tasks import TASKS
from data_prep.traces.candidates import Reply
from data_prep.traces.filtering.curation import CANDIDATES, QUESTIONS, REJECTED, ROWS, CurationSettings, curate
from data_prep.traces.filtering.filters import FilterSettings
from data_prep.traces.filtering.instances import Instance, answers_read, dual_questions, ill_posed, read_instances
from data_prep.traces.questions import Question
from tests.data_prep.traces.filtering.planted import (
    TRACE,
    VOCABULARY,
    bad_replies,
    candidate,
    good,
    prepared,
    questions_in,
)
from tests.data_prep.traces.filtering.planted import write_candidates as write

SETTINGS = FilterSettings()


def wrong_reply(question: Question) -> Reply:
    return bad_replies(question)["wrong_label" if isinstance(question.gold, str) else "low_similarity"]


def answers_to(primal: Question) -> list[Value]:
    """Return the right answer and a wrong one."""
    wrong = primal.read(wrong_reply(primal).text, VOCABULARY).value
    assert wrong not in (None, primal.gold)
    return [primal.gold, wrong]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("posed"), cells=1)


@pytest.fixture(params=sorted(TASKS))
def make(request, data) -> Callable[[Sequence[bool]], Instance]:
    """Return a function from which answers' duals are solved (right answer first) to the instance."""

    def instance(solved: Sequence[bool]) -> Instance:
        primal = next(question for question in questions_in(data) if question.group == f"{request.param}/primal")
        made = Instance(primal=primal)
        for number, (answer, well) in enumerate(zip(answers_to(primal), solved, strict=False)):
            dual = primal.about(answer, VOCABULARY)
            replies = [Reply("no answer at all"), good(dual) if well else wrong_reply(dual)]
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


def test_a_dual_that_was_worded_otherwise_is_no_evidence(make):
    instance = make((True,))
    for replies in instance.replies.values():
        replies[:] = [r if r.key == instance.primal.key else candidate(instance.primal, 0, r.reply) for r in replies]
    assert ill_posed(instance, VOCABULARY, SETTINGS) == "unanswerable"


def test_duals_are_asked_about_each_different_answer_once(make):
    instance = make((True, True))
    primal = instance.primal
    again = candidate(primal, 2, primal.response(primal.gold, "Once more."))
    instance.replies[primal.key] += [again, candidate(primal, 3, "no answer")]
    assert answers_read(instance, primal, VOCABULARY) == answers_to(primal)
    duals = list(dual_questions([instance, Instance(dual=primal)], VOCABULARY))
    assert [dual.key for dual in duals] == [key for key in instance.replies if key != primal.key]
    assert duals[0].key == primal.key.replace("/primal/", "/dual/")


def test_curation_rejects_what_is_not_well_posed_and_does_not_fill_it(tmp_path):
    folder = prepared(tmp_path / "data", cells=3)
    asked = questions_in(folder)
    write(folder, [candidate(question, 0, good(question)) for question in asked if question.direction == "primal"])
    primal = [question for question in asked if question.group == "cell_type_annotation/primal"]
    write(folder, [candidate(q, 1, q.response(answers_to(q)[1], TRACE)) for q in primal])
    duals = list(dual_questions(read_instances(folder / QUESTIONS, folder / CANDIDATES, TASKS)[0], VOCABULARY))
    solved = {primal[0].about(answer, VOCABULARY).key for answer in answers_to(primal[0])}  # both of the first
    solved |= {primal[1].about(primal[1].gold, VOCABULARY).key}  # one of the second, none of the third
    write(folder, [candidate(dual, 0, good(dual) if dual.key in solved else wrong_reply(dual)) for dual in duals])
    curate(folder, TASKS, CurationSettings(well_posed=True, fill=True))
    rejected = {(row["key"], row["candidate"]): row["reason"] for row in read_jsonl(folder / REJECTED)}
    assert [rejected.get((question.key, 0), "") for question in primal] == ["not_unique", "", "unanswerable"]
    assert [rejected[question.key, 1] for question in primal] == ["wrong_label"] * 3
    assert rejected[primal[0].about(primal[0].gold, VOCABULARY).key, 0] == "no_primal"
    rows = [row for row in read_jsonl(folder / ROWS) if row["datasource"] == "cell_type_annotation"]
    assert {row["id"] for row in rows} == {primal[1].example.id}
