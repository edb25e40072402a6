from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.traces.candidates import Candidate, CandidateLog, Reply, read_candidates
from tests.refused import refused

counts = st.integers(0, 2**40)
replies = st.builds(Reply, st.text(), counts, counts, st.text(max_size=9))
candidates = st.builds(Candidate, st.text(), counts, st.text(max_size=12), st.text(), st.text(), replies)


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


def test_any_other_malformed_line_is_an_error_and_so_is_a_missing_file(tmp_path):
    path = tmp_path / "c.jsonl"
    with refused("unreadable-file"):
        list(read_candidates(path))
    for bad in ("not json", "", "[]", "{}", {**FIELDS, "reply": "B"}, {**FIELDS, "candidate": "0"}):
        lines = json.dumps(FIELDS), bad if isinstance(bad, str) else json.dumps(bad), ""
        path.write_text("\n".join(lines))
        with refused("malformed") as error:
            list(read_candidates(path))
        assert error.value.where == f"{path}:2", bad


def test_lone_surrogates_become_text_that_any_reader_takes(tmp_path):
    write(tmp_path / "c.jsonl", Candidate("k", 0, "p", "t", "v", Reply("a\ud800b")))
    assert [read.reply.text for read in read_candidates(tmp_path / "c.jsonl")] == ["a?b"]
