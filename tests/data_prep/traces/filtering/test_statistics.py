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
from tests.data_prep.traces.filtering.planted import (
    TRACE,
    bad_replies,
    candidate,
    good,
    others,
    prepared,
    questions_in,
    write_candidates,
)

ANNOTATION = "cell_type_annotation"


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Candidate]]:
    """Two cells; of each question a good candidate, another, one without an answer, and one near, by two teachers."""
    folder = prepared(tmp_path_factory.mktemp("statistics"), cells=2)
    made = []
    for question in questions_in(folder):
        value = question.gold
        near = value if isinstance(value, str) else (*others(question, 2), *value[2:])
        texts = [good(question).text, good(question, "Again.").text, f"<think>{TRACE}</think>"]
        made += [candidate(question, number, text, "first") for number, text in enumerate(texts)]
        made.append(candidate(question, 0, question.response(near, f"{TRACE} Or nearly."), "second"))
    write_candidates(folder, made)
    return folder, made


@pytest.fixture(scope="module")
def found(planted) -> Statistics:
    return statistics(planted[0], TASKS, CurationSettings())


def test_reasons_are_counted_by_group_and_by_teacher(found):
    labels = {"": 2, "not_best": 4, "no_answer": 2}
    assert found.reasons[f"{ANNOTATION}/primal"] == labels
    assert sum(found.reasons.values(), Counter()) == sum(found.teachers.values(), Counter())
    assert found.teachers["first"][""] == 20
    assert found.teachers["first"]["no_answer"] == 20
    assert found.questions == found.asked == Counter(dict.fromkeys(found.reasons, 2))
    assert passed(found.reasons[f"{ANNOTATION}/primal"]) == 6


def test_the_sweep_counts_what_each_threshold_leaves(planted, found):
    folder = planted[0]
    duals = [q for q in questions_in(folder) if (q.pair.name, q.direction) == (ANNOTATION, "dual")]
    near = [similarity(q.gold, (*others(q, 2), *q.gold[2:])) for q in duals]
    twice = statistics(folder, TASKS, CurationSettings.read({"filters": {"keep": 3}})).sweep[f"{ANNOTATION}/dual"]
    for step in STEPS:
        assert found.sweep[f"{ANNOTATION}/dual"][step] == (2, 2)
        assert twice[step] == (2, 4 + sum(score >= step for score in near))
    assert 0 < min(near) < 1
    assert set(found.sweep) == {group for group in found.questions if _is_list(group)}


def _is_list(group: str) -> bool:
    task, _, direction = group.rpartition("/")
    pair = TASKS[task]
    return not hasattr(pair.answer if direction == "primal" else pair.unknown, "kind")


def test_scores_are_told_by_candidate_number(found):
    scores = found.scores[f"{ANNOTATION}/primal"]
    assert {number: total / count for number, (count, total) in scores.items()} == {0: 1.0, 1: 1.0, 2: 0.0}


def test_traces_are_measured_in_words(found):
    words = len(TRACE.split())
    assert found.trace_words[f"{ANNOTATION}/dual"] == {words: 4, words + 1: 2, words + 2: 2}


@given(values=st.lists(st.integers(0, 50), min_size=1), share=st.floats(0, 1))
def test_a_quantile_splits_the_values(values, share):
    (middle,) = quantiles(Counter(values), [share])
    assert sum(value <= middle for value in values) >= share * len(values) - 1e-9
    assert sum(value < middle for value in values) <= share * len(values) + 1e-9
    assert quantiles(Counter(values), [0.0, 1.0]) == [min(values), max(values)]


def test_the_settings_are_those_of_the_last_filter(planted):
    folder = planted[0]
    assert last_settings(folder) == CurationSettings()
    wanted = CurationSettings.read({"filters": {"keep": 2, "thresholds": {"dual": 0.2}}, "fill": True})
    curate(folder, TASKS, wanted)
    assert last_settings(folder) == wanted
    (folder / ROWS).unlink()


def test_tables_and_a_picture_are_made_of_them(found, tmp_path):
    assert [table.row_count > 0 for table in tables(found)] == [True] * 5
    first = plot(found, tmp_path / "stats.png").read_bytes()
    assert first[:4] == b"\x89PNG"
    assert plot(found, tmp_path / "again.png").read_bytes() == first


def test_the_rates_count_what_was_not_needed_as_passed(tmp_path):
    folder = prepared(tmp_path, cells=1, tasks=[TASKS[ANNOTATION]])
    asked = questions_in(folder)
    duals = [question for question in asked if question.direction == "dual"]
    write_candidates(folder, [candidate(question, 0, good(question)) for question in duals])
    found = statistics(folder, TASKS, CurationSettings())
    assert found.reasons[f"{ANNOTATION}/dual"] == {"no_primal": 1}
    assert found.sweep[f"{ANNOTATION}/dual"][1.0] == (1, 1)
    assert (found.questions[f"{ANNOTATION}/primal"], found.asked[f"{ANNOTATION}/primal"]) == (1, 0)
    assert [table.row_count > 0 for table in tables(found)]


def test_candidates_of_another_preparation_are_an_error(tmp_path):
    folder = prepared(tmp_path, cells=1)
    question = questions_in(folder)[0]
    write_candidates(folder, [Candidate(question.key, 0, "f" * 12, "t", "0" * 12, bad_replies(question)["empty"])])
    with pytest.raises(CellDualityError, match="no candidate is of this preparation"):
        statistics(folder, TASKS, CurationSettings())
