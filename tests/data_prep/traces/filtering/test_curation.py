"""From planted candidates to exactly the planted rows, in the proportions that were asked for."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import read_jsonl, write_jsonl
from cellduality_plugin.tasks import TASKS
from data_prep.manifests import read_manifest
from data_prep.traces.candidates import Candidate, Reply, read_candidates
from data_prep.traces.filtering.curation import (
    CANDIDATES,
    QUESTIONS,
    REJECTED,
    ROWS,
    CurationSettings,
    curate,
    decide,
    describe,
)
from data_prep.traces.filtering.filters import FilterSettings
from data_prep.traces.filtering.instances import Instances, SomeQuestions, instance_key
from data_prep.traces.filtering.rows import apportioned, chosen
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
    write_candidates,
)


def planted(questions: list[Question]) -> Iterator[tuple[Candidate, str]]:
    """Yield candidates with the reason each must be given: two of its own by turns, a good one, one too many."""
    turns = cycle(range(99))
    for question in questions:
        bad = list(bad_replies(question).items())
        first, second = (bad[next(turns) % len(bad)] for _ in range(2))
        replies = [first, ("", good(question)), second, ("not_best", good(question, "Said otherwise."))]
        for number, (reason, reply) in enumerate(replies):
            yield candidate(question, number, reply), reason


@pytest.fixture(scope="module")
def plants(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[tuple[str, int], str]]:
    """A preparation with candidates, in no order, and the reason of each by key and number."""
    folder = prepared(tmp_path_factory.mktemp("planted"))
    made = list(planted(questions_in(folder)))
    write_candidates(folder, (made[place][0] for place in np.random.default_rng(1).permutation(len(made))))
    return folder, {(each.key, each.candidate): reason for each, reason in made}


@pytest.fixture
def data(plants, tmp_path) -> Path:
    return Path(shutil.copytree(plants[0], tmp_path / "data"))


def output(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in (ROWS, REJECTED)]


def made_with(**values: object) -> CurationSettings:
    return CurationSettings.read(values)


def key_of(row: dict[str, str]) -> str:
    return f"{row['datasource']}/{row['direction']}/{row['id']}#{row['view']}"


class TestPlanted:
    def test_rows_are_the_planted_ones_and_every_rejection_names_its_reason(self, data, plants):
        curate(data, TASKS, CurationSettings())
        rows, rejected = (list(read_jsonl(data / name)) for name in (ROWS, REJECTED))
        expected = plants[1]
        assert {(key_of(row), row["candidate"]) for row in rows} == {k for k, reason in expected.items() if not reason}
        assert {(row["key"], row["candidate"]): row["reason"] for row in rejected} == {
            key: reason for key, reason in expected.items() if reason
        }

    def test_rows_have_the_columns_of_the_questions_and_tell_where_they_come_from(self, data):
        curate(data, TASKS, CurationSettings())
        questions = {key_of(row): row for row in read_jsonl(data / QUESTIONS)}
        candidates = {(each.key, each.candidate): each for each in read_candidates(data / CANDIDATES)}
        for row in read_jsonl(data / ROWS):
            asked, said = questions[key_of(row)], candidates[key_of(row), row["candidate"]]
            assert {name: row[name] for name in asked if name != "output"} == {
                name: asked[name] for name in asked if name != "output"
            }
            assert row["output"] == asked["output"].replace("<think>", f"<think>{TRACE}") == said.reply.text
            provenance = {"teacher": "planted", "teacher_version": "0" * 12, "candidate": 1, "score": 1.0}
            assert {name: row[name] for name in provenance} == provenance
            assert (row["trace_words"], row["prompt"]) == (len(TRACE.split()), said.prompt)

    def test_manifests_count_rows_and_reasons(self, data, plants):
        summary = curate(data, TASKS, CurationSettings())
        manifest = read_manifest(data / ROWS)
        assert manifest["counts"] == dict.fromkeys(
            (f"{task}/{d}" for task in sorted(TASKS) for d in ("dual", "primal")), 3
        )
        assert manifest["drops"] == Counter(reason for reason in plants[1].values() if reason)
        assert read_manifest(data / REJECTED)["counts"] == manifest["drops"]
        assert manifest["other_preparations"] == 0
        assert describe(summary).row_count == len(manifest["questions"])

    def test_without_traces_rows_are_those_of_the_preparation(self, data):
        curate(data, TASKS, made_with(filters={"traces": False}))
        bare = {(row["input"], row["output"]) for row in read_jsonl(data / QUESTIONS)}
        assert {(row["input"], row["output"]) for row in read_jsonl(data / ROWS)} == bare


class TestRepeats:
    def test_a_second_run_finds_all_up_to_date(self, data):
        assert not curate(data, TASKS, CurationSettings()).up_to_date
        before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
        assert curate(data, TASKS, CurationSettings()).up_to_date
        assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == before

    @pytest.mark.parametrize("change", ["settings", "candidates", "rows"])
    def test_what_changed_is_made_anew(self, data, change):
        curate(data, TASKS, CurationSettings())
        if change == "candidates":
            write_candidates(data, [candidate(questions_in(data)[0], 9, "one more")])
        if change == "rows":
            (data / ROWS).write_text("touched")
        assert not curate(data, TASKS, made_with(fill=change == "settings")).up_to_date

    def test_the_same_seed_gives_the_same_bytes_and_another_another_order(self, data):
        shares = {"dual": 0.5}
        first = curate(data, TASKS, made_with(shares=shares)) and output(data)
        (data / ROWS).unlink()
        assert (curate(data, TASKS, made_with(shares=shares)) and output(data)) == first
        curate(data, TASKS, made_with(shares=shares, seed=7))
        assert output(data)[0] != first[0]

    def test_the_order_of_the_candidates_does_not_matter(self, data):
        first = curate(data, TASKS, CurationSettings()) and output(data)
        lines = (data / CANDIDATES).read_text().splitlines(keepends=True)
        (data / CANDIDATES).write_text("".join(reversed(lines)))
        assert not curate(data, TASKS, CurationSettings()).up_to_date
        assert output(data) == first

    def test_nothing_is_left_beside_the_files(self, data):
        curate(data, TASKS, CurationSettings())
        hidden = [path for path in data.rglob("*") if path.name.startswith(".")]
        assert hidden == []


class TestDuals:
    def without_primal(self, folder: Path, name: str = "cell_type_annotation") -> None:
        """Plant good replies to all questions but the primal ones of one pair."""
        (folder / CANDIDATES).unlink()
        asked = [q for q in questions_in(folder) if (q.pair.name, q.direction) != (name, "primal")]
        write_candidates(folder, [candidate(question, 0, good(question)) for question in asked])

    def test_without_a_primal_row_are_rejected(self, data):
        self.without_primal(data)
        curate(data, TASKS, CurationSettings())
        rejected = list(read_jsonl(data / REJECTED))
        assert {row["reason"] for row in rejected} == {"no_primal"}
        assert {row["key"].split("/")[0] for row in rejected} == {"cell_type_annotation"}
        assert len(rejected) == 3

    def test_are_kept_if_asked_for_or_if_the_primal_row_is_bare(self, data):
        self.without_primal(data)
        for values in ({"duals": "all"}, {"fill": True}):
            curate(data, TASKS, made_with(**values))
            assert list(read_jsonl(data / REJECTED)) == []

    def test_that_fail_leave_primal_rows_that_are_counted(self, data):
        (data / CANDIDATES).unlink()
        primal = [question for question in questions_in(data) if question.direction == "primal"]
        write_candidates(data, [candidate(question, 0, good(question)) for question in primal])
        manifest = curate(data, TASKS, CurationSettings()).manifests[ROWS]
        assert manifest["primal_without_dual"] == {f"{task}/primal": 3 for task in sorted(TASKS)}
        filled = curate(data, TASKS, made_with(fill=True)).manifests[ROWS]
        assert filled["primal_without_dual"] == {}
        assert filled["filled"] == {f"{task}/dual": 3 for task in sorted(TASKS)}

    def test_can_be_left_out(self, data):
        curate(data, TASKS, made_with(directions="primal"))
        assert {row["direction"] for row in read_jsonl(data / ROWS)} == {"primal"}


def test_filled_rows_are_those_of_the_preparation_and_name_no_teacher(data):
    (data / CANDIDATES).unlink()
    asked = questions_in(data)
    write_candidates(data, [candidate(asked[0], 0, good(asked[0])), candidate(asked[1], 0, "no answer")])
    curate(data, TASKS, made_with(fill=True))
    rows = {key_of(row): row for row in read_jsonl(data / ROWS)}
    given = {key_of(row): row for row in read_jsonl(data / QUESTIONS)}
    assert rows.keys() == given.keys()
    for key in rows.keys() - {asked[0].key}:
        nobody = {"teacher": "none", "teacher_version": "", "candidate": -1, "score": 1.0, "trace_words": 0}
        assert {**given[key], **nobody, "prompt": rows[key]["prompt"]} == rows[key]
    assert {type(row[name]) for row in rows.values() for name in ("candidate", "trace_words")} == {int}


THRESHOLDS = st.floats(0, 1)


@settings(max_examples=30)
@given(pair=st.tuples(THRESHOLDS, THRESHOLDS), keep=st.integers(1, 4), duals=st.sampled_from(["paired", "all"]))
def test_a_higher_threshold_never_adds_a_row(graded, pair, keep, duals):
    low, high = sorted(pair)

    def rows(threshold: float) -> set[tuple[str, int]]:
        chosen_with = made_with(filters={"threshold": threshold, "keep": keep}, duals=duals)
        return {
            (question.key, each.candidate)
            for instance in graded
            for question, judged, _ in decide(instance, VOCABULARY, chosen_with)
            for each, verdict in judged
            if verdict.accepted
        }

    assert rows(high) <= rows(low)


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> list:
    """Instances whose lists miss from none to all of the right genes."""
    folder = prepared(tmp_path_factory.mktemp("graded"), cells=1)
    made = []
    for question in questions_in(folder):
        for number in range(5):
            value = question.gold
            if not isinstance(value, str):
                missing = number * len(value) // 4
                value = (*value[: len(value) - missing], *others(question, missing))
            made.append(candidate(question, number, question.response(value, f"{TRACE} Draft {number}.")))
    write_candidates(folder, made)
    return list(Instances(folder / QUESTIONS, folder / CANDIDATES, TASKS))


class TestProportions:
    COUNTS = st.dictionaries(
        st.sampled_from([f"{task}/{direction}" for task in "ab" for direction in ("primal", "dual")]),
        st.integers(1, 200),
        min_size=1,
    )

    @given(counts=COUNTS, weights=st.lists(st.floats(0.01, 10), min_size=4, max_size=4))
    def test_are_realised_within_rounding_and_leave_no_row_out_needlessly(self, counts, weights):
        shares = dict(zip(("a/primal", "a/dual", "b/primal", "b/dual"), weights, strict=True))
        left = apportioned(counts, shares)
        scale = min(count / shares[group] for group, count in counts.items())
        for group, count in left.items():
            assert 0 <= count <= counts[group]
            assert abs(count - scale * shares[group]) <= 0.5 + 1e-9
        assert any(left[group] == counts[group] for group in counts)

    @given(counts=COUNTS, seed=st.integers(0, 99))
    def test_rows_are_chosen_once_each(self, counts, seed):
        groups = [group for group, count in counts.items() for _ in range(count)]
        places = chosen(groups, {"dual": 0.3}, np.random.default_rng(seed))
        assert len(set(places)) == len(places)
        assert Counter(groups[place] for place in places) == +Counter(apportioned(counts, {"dual": 0.3}))
        assert sorted(chosen(groups, {}, np.random.default_rng(seed))) == list(range(len(groups)))

    def test_of_written_rows_are_those_asked_for(self, data):
        curate(data, TASKS, made_with(shares={"primal": 1, "dual": 2 / 3, "cell_type_annotation": 0}))
        counts = Counter((row["datasource"], row["direction"]) for row in read_jsonl(data / ROWS))
        rest = sorted(TASKS.keys() - {"cell_type_annotation"})
        assert counts == {(task, direction): n for task in rest for direction, n in (("primal", 3), ("dual", 2))}

    def test_nothing_left_is_an_error(self, data):
        with pytest.raises(CellDualityError, match="every group weighs 0"):
            curate(data, TASKS, made_with(shares={"primal": 0, "dual": 0}))


class TestInstances:
    def test_read_part_by_part_are_the_same(self, data):
        whole, parts = (
            Instances(data / QUESTIONS, data / CANDIDATES, TASKS, part_bytes=size) for size in (2**30, 20_000)
        )
        found = [{instance_key(instance.primal.key): instance for instance in each} for each in (whole, parts)]
        assert found[0].keys() == found[1].keys()
        assert list(found[0]) != list(found[1]), "several parts have another order"
        for key, instance in found[0].items():
            other = found[1][key]
            assert instance.questions() == other.questions()
            for question in instance.questions():
                assert instance.replies_to(question) == other.replies_to(question) != []
        assert (whole.matched, whole.unknown) == (parts.matched, parts.unknown) == (120, 0)

    def test_candidates_for_another_wording_are_counted_and_left_out(self, data):
        question = questions_in(data)[0]
        old = Candidate(question.key, 7, "f" * 12, "planted", "0" * 12, Reply(good(question, "Old.").text))
        gone = Candidate(f"{question.key}9", 7, "f" * 12, "planted", "0" * 12, Reply("gone"))
        write_candidates(data, [old, gone])
        summary = curate(data, TASKS, CurationSettings())
        assert summary.manifests[ROWS]["other_preparations"] == 2
        assert not any(row["candidate"] == 7 for name in (ROWS, REJECTED) for row in read_jsonl(data / name))

    def test_some_questions_come_with_their_duals(self, data):
        rng = np.random.default_rng(0)
        some = SomeQuestions(data / QUESTIONS, TASKS, 7, rng)
        pairs = Counter(instance_key(question.key) for question in some)
        assert len(list(some)) == len(some) == 6
        assert set(pairs.values()) == {2}
        assert list(SomeQuestions(data / QUESTIONS, TASKS, None, rng)) == questions_in(data)


class TestErrors:
    @pytest.fixture
    def fails(self, data):
        def check(what: str, where: str, **values: object) -> None:
            before = sorted(data.rglob("*"))
            with pytest.raises(CellDualityError, match=what) as error:
                curate(data, TASKS, made_with(**values))
            assert where in error.value.where
            assert error.value.mend
            assert sorted(data.rglob("*")) == before

        return check

    def test_candidates_of_another_preparation(self, data, fails):
        rows = list(read_jsonl(data / QUESTIONS))
        write_jsonl(data / QUESTIONS, [{**row, "input": f"Please. {row['input']}"} for row in rows])
        fails("all 120 candidates are of another preparation", "candidates.jsonl")

    def test_candidates_for_duals_of_other_answers_alone(self, data, fails):
        primal = next(question for question in questions_in(data) if question.key.startswith("cell_type_annotation/p"))
        wrong = next(label for label in VOCABULARY.labels["cell_type"] if label != primal.gold)
        dual = primal.about(wrong, VOCABULARY)
        (data / CANDIDATES).unlink()
        write_candidates(data, [candidate(dual, 0, good(dual))])
        fails("no candidate answers a question of sft.jsonl", "candidates.jsonl")

    def test_nothing_passes(self, data, fails):
        asked = questions_in(data)
        (data / CANDIDATES).unlink()
        write_candidates(data, [candidate(question, 0, "no answer") for question in asked])
        fails("no candidate passes: 30 x no_answer", "candidates.jsonl")

    def test_nothing_passes_and_bare_answers_will_do(self, data):
        asked = questions_in(data)
        (data / CANDIDATES).unlink()
        write_candidates(data, [candidate(question, 0, "no answer") for question in asked])
        curate(data, TASKS, CurationSettings(fill=True))
        assert [row["teacher"] for row in read_jsonl(data / ROWS)] == ["none"] * len(asked)

    @pytest.mark.parametrize("name", [CANDIDATES, QUESTIONS])
    def test_a_file_is_missing(self, data, fails, name):
        (data / name).unlink()
        fails("cannot read: No such file", name)

    def test_a_malformed_line(self, data, fails):
        with (data / CANDIDATES).open("a") as stream:
            stream.write("[]\n")
        fails("not a candidate", "candidates.jsonl:121")

    def test_a_group_that_nobody_knows(self, fails):
        fails("no group 'anotation'", "--share", shares={"anotation": 1})
        fails("no group 'dul'", "--threshold", filters={"thresholds": {"dul": 0.1}})
        fails("out of bounds", "--threshold", filters={"thresholds": {"dual": 1.1}})

    def test_a_wrong_setting_is_named(self):
        with pytest.raises(CellDualityError, match="directions"):
            made_with(directions="sideways")
        assert FilterSettings().threshold == 0.5
