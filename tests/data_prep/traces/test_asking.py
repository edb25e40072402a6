"""A real chat server on loopback does what a test scripts; below HTTP see tests/policies/test_addresses.py."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellduality_plugin.examples import Example
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.parsing import MAX_CHARACTERS
from cellduality_plugin.policies import addresses
from cellduality_plugin.policies.addresses import RequestFailed
from cellduality_plugin.tasks import get_task
from data_prep.traces.asking.endpoint import INSTRUCTIONS, EndpointTeacher
from data_prep.traces.asking.sampling import SampleSettings, sample
from data_prep.traces.candidates import Candidate, CandidateLog, Reply, Teacher, prompt_hash, read_candidates
from data_prep.traces.questions import Question
from tests.commands.conftest import invoke
from tests.data_prep.traces.planted import good, prepared, questions_in
from tests.refused import refused
from tests.scripted_server import Said

KEY = "sk-test-0123456789abcdef"
ANSWER = "<think>CD79A ranks high.</think><answer>B cell</answer>"


def questions(count: int) -> list[Question]:
    """Return questions whose prompts hold their number."""
    task, parts = get_task("cell_type_annotation"), ({"cell": ("A", "B")}, {"observed": ("A",)}, ("B",), "B cell")
    cells = (Example(task.name, f"toy/{number}", *parts) for number in range(count))
    return [Question(task, "primal", cell, 0, "B cell", f"question {n}") for n, cell in enumerate(cells)]


def body(text: Any = ANSWER, **changed: Any) -> bytes:
    """Return the body of a chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 100, "completion_tokens": 20}
    return json.dumps({"id": "1", "choices": [choice], "usage": usage, **changed}).encode()


@dataclass
class Completed(Said):
    """A response; by default a completion."""

    body: bytes = field(default_factory=body)


@pytest.fixture
def server(policy_server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A chat server; who asks it has a key, and loses no time after a failure."""
    monkeypatch.setattr(addresses, "FIRST_REST", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    policy_server.usual = lambda *asked: Completed()
    return policy_server


@pytest.fixture
def teacher(server: Any) -> EndpointTeacher:
    return EndpointTeacher("toy", server.url, timeout=2.0)


[QUESTION] = questions(1)
ESTIMATED = (len(INSTRUCTIONS) + len("question 0")) // 3 + len(ANSWER) // 3


def ask(teacher, number=0):
    """Return the reply to a candidate of one question."""

    async def one():
        teacher.open(8)
        try:
            return await teacher.answer(QUESTION, number)
        finally:
            await teacher.close()

    return asyncio.run(one())


def test_a_reply_and_what_was_asked_for_it(server, teacher):
    reply = ask(teacher, 3)
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens, reply.finish) == (ANSWER, 100, 20, "stop")
    messages = [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": "question 0"}]
    assert server.asked == [{"model": "toy", "max_tokens": 1024, "seed": 3, "temperature": 1.0, "messages": messages}]
    assert teacher.name == "toy@127.0.0.1"


def test_a_body_that_is_no_completion_is_asked_for_again(server, teacher):
    malformed = b'{"choices": [{"mess', b'{"error": {"message": "overloaded"}}', b"[" * 100_000, b"\xff\xfe<html>"
    server.script = [Completed(body=content) for content in malformed]
    assert ask(teacher).text == ANSWER
    assert len(server.asked) == 5


@pytest.mark.parametrize(
    ("status", "content", "headers", "code"),
    [
        (401, f'{{"error": {{"message": "bad {KEY}"}}}}', {}, "key-refused"),
        (403, "{}", {}, "key-refused"),
        (404, '{"error": {"message": "The model does not exist"}}', {}, "no-model"),
        (402, "{}", {}, "no-credit"),
        (429, '{"error": {"message": "quota", "code": "insufficient_quota"}}', {}, "no-credit"),
        (429, "{}", {"Retry-After": "3600"}, "long-wait"),
    ],
)
def test_what_no_question_would_survive_ends_the_run(server, teacher, status, content, headers, code):
    server.usual = lambda *asked: Completed(status, content.encode(), headers=headers)
    with refused(code) as error:
        ask(teacher)
    assert KEY not in str(error.value)
    assert (len(server.asked), server.keys) == (1, {f"Bearer {KEY}"})


@pytest.mark.parametrize(
    ("changed", "text", "finish", "tokens"),
    [
        ({"choices": []}, "", "", 120),
        ({"choices": [None]}, "", "", 120),
        ({"choices": [{"message": {"content": None}, "finish_reason": "content_filter"}]}, "", "content_filter", 120),
        ({"choices": [{"message": {"content": "CD79A"}, "finish_reason": None}]}, "CD79A", "", 120),
        ({"choices": [{"message": {"content": [{"type": "text", "text": ANSWER}]}}]}, ANSWER, "", 120),
        ({"choices": [{"message": {"content": "B", "reasoning_content": "A."}}]}, "<think>A.</think>B", "", 120),
        ({"choices": [{"message": {"content": "x" * 70_000}}]}, "x" * (MAX_CHARACTERS + 1), "", 120),
        ({"usage": None}, ANSWER, "stop", ESTIMATED),
        ({"usage": {"prompt_tokens": -1, "completion_tokens": "many"}}, ANSWER, "stop", ESTIMATED),
    ],
)
def test_odd_completions_are_replies(server, teacher, changed, text, finish, tokens):
    server.script = [Completed(body=body(**changed))]
    reply = ask(teacher)
    assert (reply.text, reply.finish, reply.tokens.sum()) == (text, finish, tokens)
    assert len(server.asked) == 1


def test_keys_and_addresses(monkeypatch, server):
    monkeypatch.delenv("OPENAI_API_KEY")
    with refused("no-key"):
        EndpointTeacher("gpt-4o")
    with refused("no-address"):
        EndpointTeacher("gpt-4o", "localhost:8000")
    assert ask(EndpointTeacher("toy", server.url + "/")).text == ANSWER  # a server of one's own needs no key


def test_the_version_names_what_decides_the_answer(server):
    own = {"base_url": server.url}
    changes = [{}, {"temperature": 0.5}, {"temperature": None}, {"max_tokens": 5}, {"seed": 1}, own]
    versions = [EndpointTeacher("gpt-4o", **changed).version for changed in changes]
    assert len(set(versions)) == len(changes)
    again = EndpointTeacher("gpt-4o", retries=1, timeout=3).version
    assert again == versions[0] == "ef018c3f7179", "candidates of earlier runs would be asked for again"


class Rule(Teacher):
    """A teacher that never waits, and fails at some (number of a question, candidate)."""

    name = "rule"

    def __init__(self, *fails, version="0123456789ab"):
        self.asked, self.fails, self.version = [], set(fails), version

    async def answer(self, question, candidate):
        self.asked.append((int(question.prompt.split()[1]), candidate))
        if self.asked[-1] in self.fails:
            raise RequestFailed("http_5xx", "broken")
        return Reply(f"<answer>{candidate}</answer>")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "traces" / "candidates.jsonl"


def run(some, teacher, out, **settings):
    return sample(some, teacher, out, SampleSettings(**settings))


def kept(out):
    return [(int(line.key.split("/")[3].partition("#")[0]), line.candidate) for line in read_candidates(out)]


def pairs(count, candidates):
    return [(number, candidate) for number in range(count) for candidate in range(candidates)]


def test_a_rule_is_asked_for_every_candidate_once_whole_questions_first(out):
    rule = Rule()
    summary = run(questions(30), rule, out, candidates=3, concurrency=7)
    assert (summary.asked, summary.present, summary.left, summary.stopped_by) == (90, 0, 0, "")
    assert kept(out) == pairs(30, 3)
    first = next(read_candidates(out))
    assert (first.prompt, first.teacher, first.version) == (prompt_hash("question 0"), "rule", "0123456789ab")
    again = run(iter([*questions(31), *questions(31)]), rule, out, candidates=4)
    assert (again.asked, again.present) == (34, 90 + 31 * 4)
    assert sorted(kept(out)) == pairs(31, 4)
    assert Counter(rule.asked).most_common(1)[0][1] == 1
    # Another version, or a question of other words, is asked anew.
    assert run(questions(2), Rule(version="another"), out, candidates=2).asked == 4
    assert run([replace(questions(1)[0], prompt="question 99"), *questions(2)], rule, out, candidates=2).asked == 2


def test_what_was_given_up_is_asked_by_the_next_run(out):
    summary = run(questions(5), Rule((1, 0), (3, 1)), out, candidates=2)
    assert (summary.asked, summary.left) == (8, 2)
    assert (summary.failed, summary.said) == ({"http_5xx": 2}, {"http_5xx": "broken"})
    again = run(questions(5), Rule(), out, candidates=2)
    assert (again.asked, again.present, again.left, again.failed) == (2, 8, 0, {})
    assert sorted(kept(out)) == pairs(5, 2)


def test_a_teacher_that_answers_nothing_ends_the_run(out):
    rule = Rule(*pairs(100, 1))
    summary = run(questions(100), rule, out, candidates=1, concurrency=4, patience=10)
    assert (summary.stopped_by, summary.asked, summary.left) == ("faults", 0, 100)
    assert 10 <= len(rule.asked) < 20


def test_a_wrong_key_ends_the_run_and_keeps_what_there_is(out, server, teacher):
    server.usual = lambda *asked: Completed() if len(server.asked) <= 10 else Completed(401, b"{}", after=0.02)
    for times in (1, 2):  # a new run tries again, no other question of this one does
        with refused("key-refused"):
            run(questions(100), teacher, out, candidates=1, concurrency=4)
        assert len(kept(out)) == 10
        assert len(server.asked) <= 10 + 8 * times
    server.usual = lambda *asked: Completed()
    assert run(questions(100), teacher, out, candidates=1).asked == 90
    assert sorted(kept(out)) == pairs(100, 1)


@pytest.mark.parametrize(
    ("limit", "prices", "budget"), [(20_000, (1e6, 1e6), "budget_tokens"), (0.05, (2.0, 10.0), "budget_usd")]
)
def test_no_run_passes_the_budget(out, server, teacher, limit, prices, budget):
    how = {"candidates": 1, "price_in": prices[0], "price_out": prices[1], budget: limit}
    summary = run(questions(400), teacher, out, concurrency=16, **how)
    assert summary.stopped_by == "budget"
    assert summary.asked == len(server.asked) == len(kept(out)) == 400 - summary.left
    spent, unused, cost = np.array([100, 20]), teacher.most(questions(1)[0]), SampleSettings(**how).cost
    assert cost(summary.tokens) == pytest.approx(summary.asked * cost(spent))
    assert limit - cost(unused + spent) <= cost(summary.tokens) <= limit
    again = run(questions(400), teacher, out, **how)  # what was spent before counts
    assert (again.asked, again.stopped_by) == (0, "budget")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_the_command_is_ended_half_way_and_resumed_and_what_is_right_becomes_rows(server, tmp_path, how):
    """Nothing is asked twice, though the endpoint fails at times, but what was in flight or not yet written."""
    prepared(tmp_path, cells=36, tasks=["cell_type_annotation"])
    right = {question.prompt: good(question) for question in questions_in(tmp_path)}
    server.script = [Completed(429, b"{}", {"retry-after": "0"}), Completed(cut=True)]
    candidates, words = tmp_path / "traces/candidates.jsonl", ("--data", tmp_path, "--teacher", "toy", "--seed", 0)
    words = ("traces", "sample", *words, "--base-url", server.url, "--candidates", 2, "--concurrency", 8)

    def usual(path, sent):  # every second candidate has no answer tag
        text = "Oh." if sent["seed"] % 2 else right[sent["messages"][-1]["content"]]
        return Completed(body=body(text), after=0.0 if resumed else 0.02 if len(server.asked) <= 100 else 0.5)

    server.usual, resumed = usual, False
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", "from cellduality_plugin.cli import main; main()", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A background job of a shell ignores Ctrl-C, and so would whatever the tests start there.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while len(server.asked) < 100:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.005)
    process.send_signal(how)
    printed, _ = process.communicate(timeout=10)
    assert process.returncode != 0
    assert not any(text in printed for text in (KEY, "never retrieved"))
    assert how == signal.SIGKILL or "run it again to go on" in printed
    time.sleep(0.6)  # what was in flight is answered to nobody

    before, first_run, resumed = {*read_candidates(candidates)}, len(server.asked), True
    assert 80 <= len(before) < 120
    invoke(*words)
    found = {(each.key, each.candidate) for each in read_candidates(candidates)}
    assert len(found) == sum(1 for _ in read_candidates(candidates)) == 2 * len(right)
    assert len(server.asked) - first_run == 2 * len(right) - len(before)
    assert first_run - len(before) <= 2 + 16
    invoke("traces", "filter", "--data", tmp_path)
    rows = list(read_jsonl(tmp_path / "sft_traces.jsonl"))
    assert Counter(row["output"] for row in rows) == Counter(right.values())
    assert {row["teacher"] for row in rows} == {"toy@127.0.0.1"}
    reasons = Counter(row["reason"] for row in read_jsonl(tmp_path / "traces/rejected.jsonl"))
    assert reasons == {"no_answer": len(right)}
    assert not any(KEY in path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())


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


@pytest.mark.parametrize("bad", ["not json", "", [], {}, {**FIELDS, "reply": "B"}, {**FIELDS, "candidate": "0"}])
def test_any_other_malformed_line_is_an_error_and_so_is_a_missing_file(bad, tmp_path):
    path = tmp_path / "c.jsonl"
    with refused("unreadable-file"):
        list(read_candidates(path))
    path.write_text("\n".join([json.dumps(FIELDS), bad if isinstance(bad, str) else json.dumps(bad), ""]))
    with refused("malformed") as error:
        list(read_candidates(path))
    assert error.value.where == f"{path}:2"


def test_lone_surrogates_become_text_that_any_reader_takes(tmp_path):
    write(tmp_path / "c.jsonl", Candidate("k", 0, "p", "t", "v", Reply("a\ud800b")))
    assert [read.reply.text for read in read_candidates(tmp_path / "c.jsonl")] == ["a?b"]
