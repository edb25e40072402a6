"""The numbers of planted candidates, counted by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellduality_plugin.tasks import TASKS
from data_prep.traces.filtering.curation import ROWS, CurationSettings, curate
from data_prep.traces.filtering.filters import similarity
from data_prep.traces.filtering.statistics import STEPS, Statistics, last_settings, statistics, tables
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


def rows_of(found: Statistics, title: str, keep: int = 1) -> dict[str, list[str]]:
    """Return {first column: the others} of the printed table whose title begins so."""
    [table] = [table for table in tables(found, keep) if str(table.title).startswith(title)]
    names, *columns = (list(column.cells) for column in table.columns)
    return dict(zip(names, map(list, zip(*columns, strict=True)), strict=True))


def test_reasons_scores_and_words_are_counted(found):
    printed = rows_of(found, "candidates")
    assert printed[PRIMAL] == ["2", "2", "8", "6", "75.0%", "2"]
    pairs = len(TASKS)
    assert printed["by first"][2:] == [str(12 * pairs), str(8 * pairs), "66.7%", str(4 * pairs)]
    why = rows_of(found, "why")
    assert why[PRIMAL] == ["4", "2", ""]
    assert list(why) == list(rows_of(found, "candidates"))[:-2]
    assert rows_of(found, "mean score")[PRIMAL] == ["1.000", "1.000", "0.000"]
    words = len(TRACE.split())
    assert rows_of(found, "words")[DUAL] == [str(words + more) for more in (0, 0, 0, 0, 1, 2, 2)]


def test_the_sweep_counts_what_each_threshold_leaves(folder, found):
    duals = [question for question in questions_in(folder) if question.group == DUAL]
    near = [similarity(q.gold, (*others(q, 2), *q.gold[2:])) for q in duals]
    twice = statistics(folder, TASKS, CurationSettings.read({"filters": {"keep": 3}}))
    assert rows_of(found, "rows left")[DUAL] == ["2"] * len(STEPS)
    left = [4 + sum(score >= step for score in near) for step in STEPS]
    assert rows_of(twice, "questions (rows, 3", keep=3)[DUAL] == [f"2 ({rows})" for rows in left]
    assert 0 < min(near) < 1
    assert set(found.sweep) == {q.group for q in questions_in(folder) if not isinstance(q.gold, str)}


def test_the_settings_are_those_of_the_last_filter(folder):
    assert last_settings(folder) == CurationSettings()
    wanted = CurationSettings.read({"filters": {"keep": 2, "thresholds": {"dual": 0.2}}, "fill": True})
    curate(folder, TASKS, wanted)
    assert last_settings(folder) == wanted
    (folder / ROWS).unlink()


def test_what_was_not_needed_is_counted_as_passed(tmp_path):
    folder = prepared(tmp_path, cells=1, tasks=[TASKS[ANNOTATION]])
    write(folder, [candidate(q, 0, good(q)) for q in questions_in(folder) if q.direction == "dual"])
    found = statistics(folder, TASKS, CurationSettings())
    assert rows_of(found, "candidates")[DUAL] == ["1", "1", "1", "1", "100.0%", "0"]
    assert rows_of(found, "why")[DUAL] == ["1"]
    assert found.sweep[DUAL][-1].tolist() == [1, 1]
    assert (found.questions[PRIMAL], found.asked[PRIMAL]) == (1, 0)
