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
from data_prep.traces.filtering.instances import Instance, Instances
from data_prep.traces.filtering.well_posed import distinct_answers, dual_questions, ill_posed
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


def answers_to(primal: Question) -> list[Value]:
    """Return the right answer and a wrong one."""
    reason = "wrong_label" if isinstance(primal.gold, str) else "low_similarity"
    wrong = primal.read(bad_replies(primal)[reason].text, VOCABULARY).value
    assert wrong not in (None, primal.gold)
    return [primal.gold, wrong]


def unsolved(dual: Question) -> Reply:
    return bad_replies(dual)["wrong_label" if isinstance(dual.gold, str) else "low_similarity"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("posed"), cells=1)


@pytest.fixture(params=sorted(TASKS))
def make(request, data, tmp_path) -> Callable[[Sequence[bool]], Instance]:
    """Return a function from which answers' duals are solved (right answer first) to the instance."""

    def instance(solved: Sequence[bool]) -> Instance:
        primal = next(q for q in questions_in(data) if (q.pair.name, q.direction) == (request.param, "primal"))
        made = Instance(primal=primal)
        for number, (answer, good_dual) in enumerate(zip(answers_to(primal), solved, strict=False)):
            dual = primal.about(answer, VOCABULARY)
            replies = [Reply("no answer at all"), good(dual) if good_dual else unsolved(dual)]
            made.replies.setdefault(primal.key, []).append(candidate(primal, number, primal.response(answer, TRACE)))
            made.replies[dual.key] = [candidate(dual, place, reply) for place, reply in enumerate(replies)]
        return made

    return instance


@pytest.mark.parametrize("solved", [(True, False), (False, True), (True,)])
def test_one_answer_that_the_dual_solves_is_well_posed(make, solved):
    assert ill_posed(make(solved), VOCABULARY, SETTINGS) == ""


@pytest.mark.parametrize("solved", [(False, False), (False,), ()])
def test_none_is_unanswerable(make, solved):
    assert ill_posed(make(solved), VOCABULARY, SETTINGS) == "unanswerable"


def test_two_are_not_unique_where_the_answer_is_a_label(make):
    instance = make((True, True))
    expected = "not_unique" if isinstance(instance.primal.gold, str) else ""
    assert ill_posed(instance, VOCABULARY, SETTINGS) == expected


def test_a_dual_that_was_worded_otherwise_is_no_evidence(make):
    instance = make((True,))
    for replies in instance.replies.values():
        replies[:] = [r if r.key == instance.primal.key else candidate(instance.primal, 0, r.reply) for r in replies]
    assert ill_posed(instance, VOCABULARY, SETTINGS) == "unanswerable"


def test_duals_are_asked_about_each_different_answer_once(make):
    instance = make((True, True))
    again = candidate(instance.primal, 2, instance.primal.response(instance.primal.gold, "Once more."))
    instance.replies[instance.primal.key] += [again, candidate(instance.primal, 3, "no answer")]
    replies = instance.replies_to(instance.primal)
    assert distinct_answers(instance.primal, replies, VOCABULARY) == answers_to(instance.primal)
    duals = list(dual_questions([instance, Instance(dual=instance.primal)], VOCABULARY))
    assert [dual.key for dual in duals] == [key for key in instance.replies if key != instance.primal.key]
    assert duals[0].key == instance.primal.key.replace("/primal/", "/dual/")
    assert {dual.direction for dual in duals} == {"dual"}


def test_curation_rejects_what_is_not_well_posed_and_does_not_fill_it(tmp_path):
    folder = prepared(tmp_path / "data", cells=3)
    asked = questions_in(folder)
    write(folder, [candidate(question, 0, good(question)) for question in asked if question.direction == "primal"])
    primal = [question for question in asked if question.pair.name == "cell_type_annotation"]
    primal = [question for question in primal if question.direction == "primal"]
    write(folder, [candidate(q, 1, q.response(answers_to(q)[1], TRACE)) for q in primal])
    duals = list(dual_questions(Instances(folder / QUESTIONS, folder / CANDIDATES, TASKS), VOCABULARY))
    solved = {primal[0].about(answer, VOCABULARY).key for answer in answers_to(primal[0])}  # both of the first
    solved |= {primal[1].about(primal[1].gold, VOCABULARY).key}  # one of the second, none of the third
    write(folder, [candidate(dual, 0, good(dual) if dual.key in solved else unsolved(dual)) for dual in duals])
    curate(folder, TASKS, CurationSettings(well_posed=True, fill=True))
    rejected = {(row["key"], row["candidate"]): row["reason"] for row in read_jsonl(folder / REJECTED)}
    assert [rejected.get((question.key, 0), "") for question in primal] == ["not_unique", "", "unanswerable"]
    assert [rejected[question.key, 1] for question in primal] == ["wrong_label"] * 3
    rows = [row for row in read_jsonl(folder / ROWS) if row["datasource"] == "cell_type_annotation"]
    assert {row["id"] for row in rows} == {primal[1].example.id}
    first_dual = primal[0].about(primal[0].gold, VOCABULARY).key
    assert rejected[first_dual, 0] == "no_primal"
