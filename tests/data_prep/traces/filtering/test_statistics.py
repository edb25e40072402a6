"""The numbers of planted candidates, counted by hand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.tasks import TASKS
from data_prep.traces.candidates import Candidate
from data_prep.traces.filtering.curation import ROWS, CurationSettings, curate
from data_prep.traces.filtering.filters import similarity
from data_prep.traces.filtering.plots import plot
from data_prep.traces.filtering.statistics import (
    STEPS,
    Statistics,
    last_settings,
    passed,
    quantiles,
    statistics,
    tables,
)
from tests.data_prep.traces.filtering.planted import TRACE, candidate, good, others, prepared, questions_in
from tests.data_prep.traces.filtering.planted import write_candidates as write

ANNOTATION = "cell_type_annotation"
PRIMAL, DUAL = f"{ANNOTATION}/primal", f"{ANNOTATION}/dual"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cells; of each question a good candidate, another, one without an answer, and one near, by two teachers."""
    folder = prepared(tmp_path_factory.mktemp("statistics"), cells=2)
    made = []
    for question in questions_in(folder):
        value = question.gold
        near = value if isinstance(value, str) else (*others(question, 2), *value[2:])
        texts = [good(question).text, good(question, "Again.").text, f"<think>{TRACE}</think>"]
        made += [candidate(question, number, text, "first") for number, text in enumerate(texts)]
        made.append(candidate(question, 0, question.response(near, f"{TRACE} Or nearly."), "second"))
    write(folder, made)
    return folder


@pytest.fixture(scope="module")
def found(folder) -> Statistics:
    return statistics(folder, TASKS, CurationSettings())


def test_reasons_scores_and_words_are_counted(found):
    assert found.reasons[PRIMAL] == {"": 2, "not_best": 4, "no_answer": 2}
    assert passed(found.reasons[PRIMAL]) == 6
    assert sum(found.reasons.values(), Counter()) == sum(found.teachers.values(), Counter())
    assert (found.teachers["first"][""], found.teachers["first"]["no_answer"]) == (20, 20)
    assert found.questions == found.asked == Counter(dict.fromkeys(found.reasons, 2))
    scores = {number: total / count for number, (count, total) in found.scores[PRIMAL].items()}
    assert scores == {0: 1.0, 1: 1.0, 2: 0.0}
    words = len(TRACE.split())
    assert found.trace_words[DUAL] == {words: 4, words + 1: 2, words + 2: 2}


def test_the_sweep_counts_what_each_threshold_leaves(folder, found):
    duals = [question for question in questions_in(folder) if question.group == DUAL]
    near = [similarity(q.gold, (*others(q, 2), *q.gold[2:])) for q in duals]
    twice = statistics(folder, TASKS, CurationSettings.read({"filters": {"keep": 3}})).sweep[DUAL]
    assert found.sweep[DUAL] == dict.fromkeys(STEPS, (2, 2))
    assert twice == {step: (2, 4 + sum(score >= step for score in near)) for step in STEPS}
    assert 0 < min(near) < 1
    assert set(found.sweep) == {q.group for q in questions_in(folder) if not isinstance(q.gold, str)}


@given(values=st.lists(st.integers(0, 50), min_size=1), share=st.floats(0, 1))
def test_a_quantile_splits_the_values(values, share):
    (middle,) = quantiles(Counter(values), [share])
    assert sum(value <= middle for value in values) >= share * len(values) - 1e-9
    assert sum(value < middle for value in values) <= share * len(values) + 1e-9
    assert quantiles(Counter(values), [0.0, 1.0]) == [min(values), max(values)]


def test_the_settings_are_those_of_the_last_filter(folder):
    assert last_settings(folder) == CurationSettings()
    wanted = CurationSettings.read({"filters": {"keep": 2, "thresholds": {"dual": 0.2}}, "fill": True})
    curate(folder, TASKS, wanted)
    assert last_settings(folder) == wanted
    (folder / ROWS).unlink()


def test_tables_and_a_picture_are_made_of_them(found, tmp_path):
    assert len(list(tables(found))) == 5
    first = plot(found, tmp_path / "stats.png").read_bytes()
    assert first[:4] == b"\x89PNG"
    assert plot(found, tmp_path / "again.png").read_bytes() == first


def test_what_was_not_needed_is_counted_as_passed(tmp_path):
    folder = prepared(tmp_path, cells=1, tasks=[TASKS[ANNOTATION]])
    write(folder, [candidate(q, 0, good(q)) for q in questions_in(folder) if q.direction == "dual"])
    found = statistics(folder, TASKS, CurationSettings())
    assert found.reasons[DUAL] == {"no_primal": 1}
    assert found.sweep[DUAL][1.0] == (1, 1)
    assert (found.questions[PRIMAL], found.asked[PRIMAL]) == (1, 0)


def test_candidates_of_another_preparation_are_an_error(tmp_path):
    question = questions_in(prepared(tmp_path, cells=1))[0]
    write(tmp_path, [Candidate(question.key, 0, "f" * 12, "t", "0" * 12, good(question))])
    with pytest.raises(CellDualityError, match="no candidate is of this preparation"):
        statistics(tmp_path, TASKS, CurationSettings())
