from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellduality_plugin.errors import CellDualityError
from data_prep.traces.candidates import Candidate, CandidateLog, Reply, Teacher, Tokens, read_candidates

counts = st.integers(0, 2**40)
replies = st.builds(Reply, st.text(), counts, counts, st.text(max_size=9))
candidates = st.builds(Candidate, st.text(), counts, st.text(max_size=12), st.text(), st.text(), replies)


def candidate(number, teacher="rule", text="<answer>B</answer>"):
    return Candidate(f"task/primal/cell#{number}", 0, "0123456789ab", teacher, "ba9876543210", Reply(text, 100, 20))


def write(path, *lines):
    with CandidateLog(path) as log:
        for line in lines:
            log.add(line)


@settings(max_examples=60)
@given(st.lists(candidates, max_size=6))
def test_what_is_written_is_read(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("log") / "candidates.jsonl"
    write(path, *written)
    assert list(read_candidates(path)) == written
    path.write_bytes(path.read_bytes()[:-9])
    assert list(read_candidates(path)) == written[:-1], "a torn last line is left out"


FIELDS = {"key": "k", "candidate": 0, "prompt": "p", "teacher": "t", "version": "v", "reply": {"text": "B"}}


@pytest.mark.parametrize(
    "bad", ["not json", "", "[]", "{}", json.dumps({**FIELDS, "reply": "B"}), json.dumps({**FIELDS, "candidate": "0"})]
)
def test_any_other_malformed_line_is_an_error(tmp_path, bad):
    write(tmp_path / "c.jsonl", candidate(0))
    with (tmp_path / "c.jsonl").open("a") as stream:
        stream.write(bad + "\n")
    with pytest.raises(CellDualityError, match=r"c.jsonl:2"):
        list(read_candidates(tmp_path / "c.jsonl"))


def test_lone_surrogates_become_text_that_any_reader_takes(tmp_path):
    write(tmp_path / "c.jsonl", candidate(0, text="a\ud800b"))
    assert [read.reply.text for read in read_candidates(tmp_path / "c.jsonl")] == ["a?b"]


def test_what_one_teacher_has_done(tmp_path):
    rule = Teacher()
    rule.name, rule.version = "rule", "ba9876543210"
    write(tmp_path / "c.jsonl", candidate(0), candidate(1), candidate(1), candidate(2, teacher="gpt"))
    with CandidateLog(tmp_path / "c.jsonl") as log:
        done = log.done(rule)
        assert (len(done), done.tokens) == (2, Tokens(200, 40))
        known = "task/primal/cell#1", 0, "0123456789ab"
        for new in (("task/primal/cell#2", *known[1:]), (known[0], 1, known[2]), (*known[:2], "another prompt")):
            assert [done.claim(*name) for name in (known, new, new)] == [False, True, False]
        rule.version = "another"
        assert len(log.done(rule)) == 0


def test_a_missing_file(tmp_path):
    with pytest.raises(CellDualityError, match="ask a teacher first"):
        list(read_candidates(tmp_path / "none.jsonl"))
