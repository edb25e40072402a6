import json
import os
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellduality_plugin.errors import CellDualityError
from data_prep.traces.candidates import Candidate, Reply
from data_prep.traces.candidates import CandidateLog, read_candidates

counts = st.integers(0, 2**40)
replies = st.builds(Reply, st.text(), counts, counts, st.text(max_size=9))
candidates = st.builds(Candidate, st.text(), counts, st.text(max_size=12), st.text(), st.text(), replies)


def candidate(number, teacher="rule", text="<answer>B</answer>"):
    return Candidate(f"task/primal/cell#{number}", 0, "0123456789ab", teacher, "ba9876543210", Reply(text, 100, 20))


@settings(max_examples=60)
@given(st.lists(candidates, max_size=6))
def test_round_trip(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("log") / "traces" / "candidates.jsonl"
    with CandidateLog(path) as log:
        for line in written:
            log.add(line)
    assert list(read_candidates(path)) == written
    assert path.read_bytes().count(b"\n") == len(written)


@settings(max_examples=60)
@given(st.lists(candidates, min_size=1, max_size=4), st.data())
def test_a_file_torn_anywhere_keeps_every_whole_line(tmp_path_factory, written, data):
    path = tmp_path_factory.mktemp("log") / "candidates.jsonl"
    with CandidateLog(path) as log:
        for line in written:
            log.add(line)
    content = path.read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut])
    whole = content[:cut].count(b"\n") + (cut < len(content) and content[cut : cut + 1] == b"\n")
    assert list(read_candidates(path)) == written[:whole]
    with CandidateLog(path) as log:
        log.add(candidate(1))
    assert list(read_candidates(path)) == [*written[:whole], candidate(1)]


def test_a_torn_line_longer_than_a_block(tmp_path):
    path = tmp_path / "candidates.jsonl"
    with CandidateLog(path) as log:
        log.add(candidate(0))
        log.add(candidate(1, text="x" * 300_000))
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size - 10)
    with CandidateLog(path) as log:
        assert len(log.done("rule", "ba9876543210")) == 1
    assert list(read_candidates(path)) == [candidate(0)]


FIELDS = {"key": "k", "candidate": 0, "prompt": "p", "teacher": "t", "version": "v", "reply": {"text": "B"}}


@pytest.mark.parametrize(
    "bad",
    [
        "not json",
        "",
        "[]",
        "{}",
        json.dumps({**FIELDS, "reply": "B"}),
        json.dumps({**FIELDS, "candidate": "0"}),
    ],
)
def test_any_other_malformed_line_is_an_error(tmp_path, bad):
    path = tmp_path / "candidates.jsonl"
    with CandidateLog(path) as log:
        log.add(candidate(0))
    with path.open("a") as stream:
        stream.write(bad + "\n")
    with CandidateLog(path) as log:  # its line end is there: no torn line
        with pytest.raises(CellDualityError, match=r"candidates.jsonl:2"):
            log.done("rule", "ba9876543210")
        log.add(candidate(1))
    with pytest.raises(CellDualityError, match=r"candidates.jsonl:2"):
        list(read_candidates(path))


def test_lone_surrogates_become_text_that_any_reader_takes(tmp_path):
    with CandidateLog(tmp_path / "c.jsonl") as log:
        log.add(candidate(0, text="a\ud800b"))
    (read,) = read_candidates(tmp_path / "c.jsonl")
    assert read.reply.text == "a?b"


def test_what_one_teacher_has_done(tmp_path):
    with CandidateLog(tmp_path / "c.jsonl") as log:
        for line in (candidate(0), candidate(1), candidate(1), candidate(2, teacher="gpt")):
            log.add(line)
        done = log.done("rule", "ba9876543210")
        assert (len(done), done.prompt_tokens, done.completion_tokens) == (2, 200, 40)
        assert not done.claim("task/primal/cell#1", 0, "0123456789ab")
        assert done.claim("task/primal/cell#1", 1, "0123456789ab")
        assert done.claim("task/primal/cell#1", 0, "another prompt")
        assert done.claim("task/primal/cell#2", 0, "0123456789ab")
        assert not done.claim("task/primal/cell#2", 0, "0123456789ab")
        assert len(log.done("rule", "another")) == 0


def test_one_process_at_a_time_and_who(tmp_path):
    path = tmp_path / "c.jsonl"
    program = f"""
        from pathlib import Path
        from data_prep.traces.candidates import CandidateLog
        with CandidateLog(Path({str(path)!r})):
            print("open", flush=True)
            input()
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(CellDualityError, match=rf"process {other.pid} on .* is appending to it .*c.jsonl"):
            CandidateLog(path)
        other.kill()  # the lock goes with the process
        other.wait()
    with CandidateLog(path) as log:
        log.add(candidate(0))


def test_a_full_disk_leaves_no_half_line(tmp_path, monkeypatch):
    path = tmp_path / "c.jsonl"
    write = os.write
    with CandidateLog(path) as log:
        log.add(candidate(0))
        monkeypatch.setattr(os, "write", lambda file, line: write(file, line[:30]))
        with pytest.raises(CellDualityError, match="cannot write: the disk is full"):
            log.add(candidate(1))
        monkeypatch.undo()
        log.add(candidate(2))
    assert list(read_candidates(path)) == [candidate(0), candidate(2)]


def test_a_missing_file(tmp_path):
    with pytest.raises(CellDualityError, match="sample a teacher first"):
        list(read_candidates(tmp_path / "none.jsonl"))
