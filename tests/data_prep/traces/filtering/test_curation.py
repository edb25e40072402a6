"""From planted candidates to exactly the planted rows, in the proportions that were asked for, and what is counted."""

from __future__ import annotations

import shutil
from collections import Counter
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellduality_plugin.files import read_jsonl, write_jsonl
from cellduality_plugin.tasks import TASKS
from data_prep.traces.candidates import Candidate, read_candidates, read_instances
from data_prep.traces.filtering import curation
from data_prep.traces.filtering.curation import CANDIDATES, QUESTIONS, REJECTED, ROWS, CurationSettings, curate
from data_prep.traces.filtering.filters import similarity
from data_prep.traces.filtering.statistics import STEPS, Statistics, last_settings, statistics, tables
from tests.data_prep.traces import planted
from tests.data_prep.traces.planted import TRACE, VOCABULARY, candidate, good, others, prepared, questions_in
from tests.refused import refused

ANNOTATION = "cell_type_annotation"
PRIMAL, DUAL = f"{ANNOTATION}/primal", f"{ANNOTATION}/dual"


@pytest.fixture(scope="module")
def plants(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[tuple[str, int], str]]:
    """A preparation with candidates, in no order, and the reason that each must be given by key and number."""
    folder = prepared(tmp_path_factory.mktemp("planted"))
    made, turns = [], cycle(range(99))
    for question in questions_in(folder):
        bad = list(planted.bad_replies(question).items())
        first, second = (bad[next(turns) % len(bad)] for _ in range(2))
        replies = [first, ("", good(question)), second, ("not_best", good(question, "Said otherwise."))]
        made += [(candidate(question, number, reply), reason) for number, (reason, reply) in enumerate(replies)]
    planted.write_candidates(folder, (made[place][0] for place in np.random.default_rng(1).permutation(len(made))))
    return folder, {(each.key, each.candidate): reason for each, reason in made}


@pytest.fixture
def data(plants, tmp_path) -> Path:
    return Path(shutil.copytree(plants[0], tmp_path / "data"))


@pytest.fixture
def only(data):
    """Return a function that makes the candidates it is given all there are."""

    def plant(*candidates: Candidate) -> None:
        (data / CANDIDATES).unlink()
        planted.write_candidates(data, candidates)

    return plant


def made(data: Path, **values: object) -> dict[str, Any]:
    """Return the manifest of the rows made with settings."""
    return curate(data, TASKS, CurationSettings.read(values)).manifests[ROWS]


def rows_of(folder: Path, name: str = ROWS) -> list[dict]:
    return list(read_jsonl(folder / name))


def key_of(row: dict[str, str]) -> str:
    return f"{row['datasource']}/{row['direction']}/{row['id']}#{row['view']}"


def test_rows_are_the_planted_ones_and_every_rejection_names_its_reason(data, plants):
    summary = curate(data, TASKS, CurationSettings())
    rejected = {(row["key"], row["candidate"]): row["reason"] for row in rows_of(data, REJECTED)}
    assert rejected == {key: reason for key, reason in plants[1].items() if reason}
    rows = {(key_of(row), row["candidate"]): row for row in rows_of(data)}
    assert rows.keys() == {key for key, reason in plants[1].items() if not reason}
    questions = {key_of(row): row for row in rows_of(data, QUESTIONS)}
    candidates = {(each.key, each.candidate): each for each in read_candidates(data / CANDIDATES)}
    for key, row in rows.items():
        asked, said = questions[key[0]], candidates[key]
        assert said.reply.text == asked["output"].replace("<think>", f"<think>{TRACE}")
        whose = {"teacher": "planted", "teacher_version": "0" * 12, "candidate": 1, "score": 1.0}
        words = {"trace_words": len(TRACE.split()), "prompt": said.prompt}
        assert row == {**asked, "output": said.reply.text, **whose, **words}
    manifest = summary.manifests[ROWS]
    assert manifest["counts"] == {f"{task}/{direction}": 3 for task in TASKS for direction in ("dual", "primal")}
    assert manifest["drops"] == summary.manifests[REJECTED]["counts"] == Counter(rejected.values())
    assert curation.describe(summary).row_count == len(manifest["questions"])


def test_without_traces_rows_are_those_of_the_preparation(data):
    made(data, filters={"traces": False})
    bare, rows = ({(row["input"], row["output"]) for row in rows_of(data, name)} for name in (QUESTIONS, ROWS))
    assert rows == bare


def test_what_is_up_to_date_is_left_and_what_changed_made_anew_but_nothing_that_was_changed_by_hand(data):
    def fresh(**values: object) -> bool:
        return not curate(data, TASKS, CurationSettings.read(values)).up_to_date

    assert [fresh(), fresh(), fresh(fill=True)] == [True, False, True]
    planted.write_candidates(data, [candidate(questions_in(data)[0], 9, "one more")])
    assert fresh(fill=True)
    (data / ROWS).write_text("mine")
    with refused("not-ours"):
        fresh()
    assert (data / ROWS).read_text() == "mine"


def test_the_same_seed_gives_the_same_bytes_whatever_the_order_of_the_candidates(data):
    def output(seed: int) -> list[bytes]:
        made(data, shares={"dual": 0.5}, seed=seed)
        return [(data / name).read_bytes() for name in (ROWS, REJECTED)]

    first = output(1)
    assert output(7)[0] != first[0]
    lines = (data / CANDIDATES).read_text().splitlines(keepends=True)
    (data / CANDIDATES).write_text("".join(reversed(lines)))
    assert output(1) == first


def test_duals_without_a_primal_row_are_rejected_unless_asked_for_or_the_primal_row_is_bare(data, only):
    only(*(candidate(question, 0, good(question)) for question in questions_in(data) if question.group != PRIMAL))
    assert made(data)["drops"] == {"no_primal": 3}
    assert made(data, duals="all")["drops"] == made(data, fill=True)["drops"] == {}
    made(data, directions="primal")
    assert {row["direction"] for row in rows_of(data)} == {"primal"}


def test_primal_rows_whose_duals_fail_are_counted(data, only):
    only(*(candidate(q, 0, good(q)) for q in questions_in(data) if q.direction == "primal"))
    assert made(data)["primal_without_dual"] == {f"{task}/primal": 3 for task in TASKS}
    filled = made(data, fill=True)
    assert (filled["primal_without_dual"], filled["filled"]) == ({}, {f"{task}/dual": 3 for task in TASKS})


def test_filled_rows_are_those_of_the_preparation_and_name_no_teacher(data, only):
    asked = questions_in(data)
    only(candidate(asked[0], 0, good(asked[0])), candidate(asked[1], 0, "no answer"))
    made(data, fill=True)
    rows, given_rows = ({key_of(row): row for row in rows_of(data, name)} for name in (ROWS, QUESTIONS))
    assert rows.keys() == given_rows.keys()
    for key in rows.keys() - {asked[0].key}:
        nobody = {"teacher": "none", "teacher_version": "", "candidate": -1, "score": 1.0, "trace_words": 0}
        assert {**given_rows[key], **nobody, "prompt": rows[key]["prompt"]} == rows[key]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cells; of each question a good candidate, another, one without an answer, and one near, by two teachers."""
    folder = prepared(tmp_path_factory.mktemp("statistics"), cells=2)
    for question in questions_in(folder):
        texts = [good(question), good(question, "Again."), f"<think>{TRACE}</think>"]
        said = [candidate(question, number, text, "first") for number, text in enumerate(texts)]
        nearly = question.response(near(question), f"{TRACE} Or nearly.")
        planted.write_candidates(folder, [*said, candidate(question, 0, nearly, "second")])
    return folder


def near(question):
    gold = question.gold
    return gold if isinstance(gold, str) else (*others(question, 2), *gold[2:])


@settings(max_examples=30)
@given(st.tuples(st.floats(0, 1), st.floats(0, 1)), st.integers(1, 4), st.sampled_from(["paired", "all"]))
def test_a_higher_threshold_never_adds_a_row(folder, pair, keep, duals):
    instances = read_instances(folder / QUESTIONS, folder / CANDIDATES, TASKS)[0]

    def kept(threshold: float) -> set[Candidate]:
        how = CurationSettings.read({"filters": {"threshold": threshold, "keep": keep}, "duals": duals})
        decided = (each for instance in instances for each in curation.decide(instance, VOCABULARY, how))
        return {verdict.candidate for _, verdicts, _ in decided for verdict in verdicts if not verdict.reason}

    assert kept(max(pair)) <= kept(min(pair))


GROUPS = ["a/primal", "a/dual", "b/primal", "b/dual"]


@given(
    counts=st.dictionaries(st.sampled_from(GROUPS), st.integers(1, 200), min_size=1),
    weights=st.lists(st.floats(0.01, 10), min_size=4, max_size=4),
    seed=st.integers(0, 99),
)
def test_proportions_are_realised_within_rounding_and_no_row_is_left_out_needlessly(counts, weights, seed):
    shares = dict(zip(GROUPS, weights, strict=True))
    groups = [group for group, count in counts.items() for _ in range(count)]
    places = curation.chosen(groups, shares, np.random.default_rng(seed))
    assert len(set(places)) == len(places)
    left, scale = Counter(groups[place] for place in places), min(counts[group] / shares[group] for group in counts)
    assert all(abs(left[group] - scale * shares[group]) <= 0.5 + 1e-9 for group in counts)
    assert any(left[group] == counts[group] for group in counts)
    assert sorted(curation.chosen(groups, {}, np.random.default_rng(seed))) == list(range(len(groups)))


def test_proportions_of_written_rows_are_those_asked_for(data):
    counts = made(data, shares={"primal": 1, "dual": 2 / 3, ANNOTATION: 0})["counts"]
    rest = TASKS.keys() - {ANNOTATION}
    assert counts == {f"{task}/{direction}": n for task in rest for direction, n in (("primal", 3), ("dual", 2))}


def test_candidates_for_another_wording_are_counted_and_left_out(data):
    question = questions_in(data)[0]
    said = [Candidate(key, 7, "f" * 12, "t", "0", candidate(question, 0, "").reply) for key in (question.key, "gone")]
    planted.write_candidates(data, said)
    assert made(data)["other_preparations"] == 2
    assert not any(row["candidate"] == 7 for name in (ROWS, REJECTED) for row in rows_of(data, name))


def fails(data: Path, code: str, where: str = CANDIDATES, **values: object) -> None:
    """Check that nothing is written, for which reason."""
    before = sorted(data.rglob("*"))
    with refused(code) as error:
        made(data, **values)
    assert where in error.value.where
    assert sorted(data.rglob("*")) == before


def test_candidates_of_another_preparation_or_for_duals_of_other_answers_alone_are_refused(data, only):
    rows = rows_of(data, QUESTIONS)
    write_jsonl(data / QUESTIONS, [{**row, "input": f"Please. {row['input']}"} for row in rows])
    fails(data, "other-preparation")
    primal = next(question for question in questions_in(data) if question.group == PRIMAL)
    dual = primal.about(next(label for label in planted.KINDS["cell_type"] if label != primal.gold), VOCABULARY)
    only(candidate(dual, 0, good(dual)))
    fails(data, "other-preparation")


def test_where_nothing_passes_bare_answers_have_to_do(data, only):
    only(*(candidate(question, 0, "no answer") for question in questions_in(data)))
    fails(data, "nothing-passes")
    made(data, fill=True)
    assert {row["teacher"] for row in rows_of(data)} == {"none"}


@pytest.mark.parametrize(
    ("code", "where", "values"),
    [
        ("unreadable-file", CANDIDATES, {}),
        ("unreadable-file", QUESTIONS, {}),
        ("unknown-group", "--share", {"shares": {"anotation": 1}}),
        ("unknown-group", "--threshold", {"filters": {"thresholds": {"dul": 0.1}}}),
        ("no-weight", "--share", {"shares": {"primal": 0, "dual": 0}}),
    ],
)
def test_a_missing_file_an_unknown_group_and_no_share_are_refused(data, code, where, values):
    (data / where).unlink(missing_ok=True)
    fails(data, code, where, **values)


def printed(found: Statistics, title: str, keep: int = 1) -> dict[str, list[str]]:
    """Return {first column: the others} of the printed table whose title begins so."""
    [table] = [table for table in tables(found, keep) if str(table.title).startswith(title)]
    names, *columns = (list(column.cells) for column in table.columns)
    return dict(zip(names, map(list, zip(*columns, strict=True)), strict=True))


def test_reasons_scores_words_and_what_each_threshold_leaves_are_counted(folder):
    found, pairs, words = statistics(folder, TASKS, CurationSettings()), len(TASKS), len(TRACE.split())
    counted, why = printed(found, "candidates"), printed(found, "why")
    assert counted[PRIMAL] == ["2", "2", "8", "6", "75.0%", "2"]
    assert counted["by first"][2:] == [str(12 * pairs), str(8 * pairs), "66.7%", str(4 * pairs)]
    assert (why[PRIMAL], list(why)) == (["4", "2", ""], list(counted)[:-2])
    assert printed(found, "mean score")[PRIMAL] == ["1.000", "1.000", "0.000"]
    assert printed(found, "words")[DUAL] == [str(words + more) for more in (0, 0, 0, 0, 1, 2, 2)]
    assert printed(found, "rows left")[DUAL] == ["2"] * len(STEPS)

    scores = [similarity(q.gold, near(q)) for q in questions_in(folder) if q.group == DUAL]
    twice = statistics(folder, TASKS, CurationSettings.read({"filters": {"keep": 3}}))
    left = [4 + sum(score >= step for score in scores) for step in STEPS]
    assert printed(twice, "questions (rows, 3", keep=3)[DUAL] == [f"2 ({rows})" for rows in left]
    assert 0 < min(scores) < 1
    assert set(found.sweep) == {q.group for q in questions_in(folder) if not isinstance(q.gold, str)}


def test_the_settings_are_those_of_the_last_filter(data):
    assert last_settings(data) == CurationSettings()
    wanted = {"filters": {"keep": 2, "thresholds": {"dual": 0.2}}, "fill": True}
    made(data, **wanted)
    assert last_settings(data) == CurationSettings.read(wanted)


def test_what_was_not_needed_is_counted_as_passed(tmp_path):
    folder = prepared(tmp_path, cells=1, tasks=[ANNOTATION])
    planted.write_candidates(folder, [candidate(q, 0, good(q)) for q in questions_in(folder) if q.direction == "dual"])
    found = statistics(folder, TASKS, CurationSettings())
    assert printed(found, "candidates")[DUAL] == ["1", "1", "1", "1", "100.0%", "0"]
    assert printed(found, "why")[DUAL] == ["1"]
    assert found.sweep[DUAL][-1].tolist() == [1, 1]
    assert (found.questions[PRIMAL], found.asked[PRIMAL]) == (1, 0)
