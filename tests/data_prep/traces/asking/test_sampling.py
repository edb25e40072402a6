import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter

import pytest

from cellduality_plugin.errors import CellDualityError
from data_prep.traces.asking.budget import Budget
from data_prep.traces.asking.endpoint import EndpointTeacher
from cellduality_plugin.policies.http import RequestFailed
from data_prep.traces.asking.sampling import SampleSettings, sample
from data_prep.traces.candidates import Reply
from data_prep.traces.candidates import CandidateLog, prompt_hash, read_candidates


class Rule:
    """A teacher that never waits."""

    name, version = "rule", "0123456789ab"

    def __init__(self, fails=()):
        self.asked, self.fails = [], set(fails)

    async def answer(self, question, candidate):
        self.asked.append((question.prompt, candidate))
        if (question.prompt, candidate) in self.fails:
            raise RequestFailed("500", "broken")
        return Reply(f"<answer>{candidate}</answer>")


def run(questions, teacher, out, **settings):
    return sample(questions, teacher, out, SampleSettings(**settings), show_progress=False)


def kept(out):
    return [(int(line.key.split("/")[3].partition("#")[0]), line.candidate) for line in read_candidates(out)]


def pairs(questions, candidates):
    return {(question, number) for question in range(questions) for number in range(candidates)}


def test_a_rule_is_asked_for_every_candidate_once(tmp_path, questions):
    out, rule = tmp_path / "traces" / "candidates.jsonl", Rule()
    summary = run(questions(30), rule, out, candidates=3, concurrency=7)
    assert (summary.asked, summary.present, summary.left, summary.stopped_by) == (90, 0, 0, "")
    assert sorted(kept(out)) == sorted(pairs(30, 3))
    first = next(read_candidates(out))
    assert (first.prompt, first.teacher, first.version) == (prompt_hash("question 0"), "rule", "0123456789ab")
    again = run(iter(questions(31)), rule, out, candidates=4)
    assert (again.asked, again.present) == (34, 90)
    assert sorted(kept(out)) == sorted(pairs(31, 4))
    assert Counter(rule.asked).most_common(1)[0][1] == 1


def test_whole_questions_come_first(tmp_path, questions):
    run(questions(5), Rule(), tmp_path / "c.jsonl", candidates=3, concurrency=1)
    assert kept(tmp_path / "c.jsonl") == [(question, number) for question in range(5) for number in range(3)]


def test_another_version_and_a_changed_prompt_are_asked_anew(tmp_path, questions):
    out, other = tmp_path / "c.jsonl", Rule()
    run(questions(2), Rule(), out, candidates=2)
    other.version = "another"
    assert run(questions(2), other, out, candidates=2).asked == 4
    changed = [type(question)(**{**vars(question), "prompt": "anew"}) for question in questions(1)]
    assert run([*changed, *questions(2)], Rule(), out, candidates=2).asked == 2


def test_a_question_told_twice_is_asked_once(tmp_path, questions):
    summary = run([*questions(2), *questions(2)], Rule(), tmp_path / "c.jsonl", candidates=2)
    assert (summary.asked, summary.present) == (4, 4)


def test_what_was_given_up_is_asked_by_the_next_run(tmp_path, questions):
    out, rule = tmp_path / "c.jsonl", Rule(fails=[("question 1", 0), ("question 3", 1)])
    summary = run(questions(5), rule, out, candidates=2)
    assert (summary.asked, summary.left, summary.failed, summary.said) == (8, 2, {"500": 2}, {"500": "broken"})
    again = run(questions(5), Rule(), out, candidates=2)
    assert (again.asked, again.present, again.left, again.failed) == (2, 8, 0, {})
    assert sorted(kept(out)) == sorted(pairs(5, 2))


def test_a_teacher_that_answers_nothing_ends_the_run(tmp_path, questions):
    rule = Rule(fails=[(f"question {number}", 0) for number in range(100)])
    summary = run(questions(100), rule, tmp_path / "c.jsonl", candidates=1, concurrency=4, patience=10)
    assert (summary.stopped_by, summary.asked, summary.left) == ("faults", 0, 100)
    assert 10 <= len(rule.asked) < 20


def test_all_faults_in_one_run(tmp_path, server, teacher, questions, said, body):
    teacher.timeout = 0.5
    server.script = [
        said(429, b"{}", headers={"Retry-After": "0.05"}),
        said(500, b"oops"),
        said(after=1.0),
        said(cut=True),
        said(body=b'{"choices": ['),
        said(body=body(choices=[])),
        said(body=body("it is a B cell")),
    ]
    out = tmp_path / "c.jsonl"
    summary = run(questions(10), teacher, out, candidates=2, concurrency=8)
    assert (summary.asked, summary.left, summary.failed) == (20, 0, {})
    assert summary.retried == {"429": 1, "500": 1, "timeout": 1, "connection": 1, "malformed": 1}
    assert sorted(kept(out)) == sorted(pairs(10, 2))
    texts = Counter(line.reply.text for line in read_candidates(out))
    assert (texts[""], texts["it is a B cell"], sum(texts.values())) == (1, 1, 20)
    assert summary.tokens == Tokens(2000, 400)


def test_a_wrong_key_ends_the_run_and_keeps_what_there_is(tmp_path, server, teacher, questions, said, key):
    out = tmp_path / "c.jsonl"
    server.usual = lambda *asked: said() if len(server.asked) <= 10 else said(401, b"{}")
    with pytest.raises(CellDualityError, match="the key was refused"):
        run(questions(100), teacher, out, candidates=1, concurrency=4)
    assert len(kept(out)) == 10
    assert len(server.asked) < 20
    server.usual = lambda *asked: said()
    assert run(questions(100), teacher, out, candidates=1).asked == 90
    assert sorted(kept(out)) == sorted(pairs(100, 1))
    assert all(key not in path.read_text() for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    "budget",
    [{"budget_tokens": 20_000}, {"budget_usd": 0.05, "price_in": 2.0, "price_out": 10.0}],
)
def test_no_run_passes_the_budget(tmp_path, server, teacher, questions, budget):
    out = tmp_path / "c.jsonl"
    server_says = Tokens(100, 20)
    most = teacher.most(questions(1)[0])
    summary = run(questions(400), teacher, out, candidates=1, concurrency=16, **budget)
    assert summary.stopped_by == "budget"
    assert summary.asked == len(server.asked) == len(kept(out))
    assert summary.left == 400 - summary.asked
    assert summary.tokens == Tokens(100 * summary.asked, 20 * summary.asked)
    if "budget_tokens" in budget:
        assert 20_000 - most.total - server_says.total <= summary.tokens.total <= 20_000
    else:
        assert 0.05 - most.cost(2, 10) - server_says.cost(2, 10) <= summary.cost <= 0.05
        assert summary.cost == pytest.approx(summary.asked * 0.0004)
    again = run(questions(400), teacher, out, candidates=1, **budget)  # what was spent before counts
    assert (again.asked, again.stopped_by, again.spent) == (0, "budget", summary.tokens)


def test_no_more_requests_are_in_flight_than_allowed(tmp_path, server, teacher, questions, said):
    server.usual = lambda *asked: said(after=0.05)
    run(questions(40), teacher, tmp_path / "c.jsonl", candidates=1, concurrency=8)
    moments = server.moments
    assert len(moments) == 40
    assert all(later - earlier >= 0.05 for earlier, later in zip(moments, moments[8:], strict=False))
    assert moments[-1] - moments[0] < 1.0  # nor many fewer: five rounds


def test_a_refused_key_is_not_tried_again_by_what_waits(tmp_path, server, teacher, questions, said):
    server.usual = lambda *asked: said(401, b"{}", after=0.02)
    for times in (1, 2):  # a new run tries again
        with pytest.raises(CellDualityError, match="the key was refused"):
            run(questions(40), teacher, tmp_path / "c.jsonl", candidates=1, concurrency=8)
        assert len(server.asked) <= 8 * times


def test_what_is_in_flight_is_reserved():
    async def scene():
        budget = Budget(tokens=100)
        assert await budget.reserve(Tokens(50, 0))
        assert await budget.reserve(Tokens(50, 0))
        third = asyncio.create_task(budget.reserve(Tokens(30, 0)))
        await asyncio.sleep(0)
        assert not third.done()
        budget.settle(Tokens(50, 0), Tokens(40, 0))
        await asyncio.sleep(0)
        assert not third.done()  # 40 spent, 50 in flight
        budget.settle(Tokens(50, 0), Tokens(20, 10))
        assert await third
        assert budget.spent == Tokens(60, 10)
        budget.settle(Tokens(30, 0), Tokens())
        assert not await budget.reserve(Tokens(31, 0))

    asyncio.run(scene())


PROGRAM = """
    import sys
    from pathlib import Path
    sys.path.insert(0, {here!r})
    from toy_questions import question
    from data_prep.traces.asking.endpoint import EndpointTeacher
    from data_prep.traces.asking.sampling import SampleSettings, sample

    teacher = EndpointTeacher("toy", {url!r}, timeout=20)
    asked = [question(number) for number in range(100)]
    sample(asked, teacher, Path({out!r}), SampleSettings(candidates=2, concurrency=8))
"""


def begun(server, out, said, until):
    """Return a process that samples, once the server has been asked so often; it is slow to answer from then on."""
    server.usual = lambda *asked: said(after=0.02 if len(server.asked) <= until else 0.5)
    text = textwrap.dedent(PROGRAM.format(here=os.path.dirname(__file__), url=server.url, out=str(out)))
    command = [sys.executable, "-W", "ignore", "-c", text]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A background job of a shell ignores Ctrl-C, and so would whatever the tests start there.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while len(server.asked) < until:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.005)
    return process


def resumed(server, out, said, questions):
    """Return (what was kept before, the server's record of what was asked then), after a second run."""
    server.usual = lambda *asked: said()
    before, asked_before = kept(out), len(server.asked)
    teacher = EndpointTeacher("toy", server.url)
    summary = run(questions(100), teacher, out, candidates=2, concurrency=8)
    assert (summary.present, summary.asked) == (len(before), 200 - len(before))
    return before, [(int(prompt.split()[1]), number) for prompt, number in server.asked[asked_before:]]


def test_killed_half_way_and_resumed(tmp_path, server, questions, said, key):
    out = tmp_path / "c.jsonl"
    process = begun(server, out, said, until=100)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    time.sleep(0.6)  # what was in flight is answered to nobody
    with out.open("ab") as stream:  # as a kill inside a write would leave it
        stream.write(b'{"key":"cell_type_annotation/primal/toy/99#0","candi')
    first_run = [(int(prompt.split()[1]), number) for prompt, number in server.asked]
    before, asked = resumed(server, out, said, questions)
    assert 80 <= len(before) < 120
    assert not {*before} & {*asked}  # nothing that was kept is asked for again
    assert Counter(asked).most_common(1)[0][1] == 1
    assert {*before} | {*asked} == pairs(100, 2)  # nothing is lost
    assert len({*first_run} & {*asked}) <= 16  # what was in flight, or answered and not yet written, is asked again
    assert sorted(kept(out)) == sorted(pairs(100, 2))


def test_ctrl_c_ends_cleanly(tmp_path, server, questions, said, key):
    out = tmp_path / "c.jsonl"
    process = begun(server, out, said, until=60)
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=10)
    assert process.returncode == -signal.SIGINT
    assert "stopped: " in told
    assert f"kept in {out}; run it again to go on" in told.replace("\n", "")
    assert "never retrieved" not in told
    assert key not in told
    before, asked = resumed(server, out, said, questions)
    assert sorted([*before, *asked]) == sorted(pairs(100, 2))


def test_progress_tells_what_is_done(tmp_path, server, teacher, questions, said, capfd):
    settings = SampleSettings(candidates=2, budget_usd=5, price_in=2.0, price_out=10.0)
    sample(questions(10), teacher, tmp_path / "c.jsonl", settings)
    told = capfd.readouterr().err
    assert "toy@127.0.0.1" in told
    assert "20/20" in told
    assert "2,400 tokens, $0.01 of $5" in told.replace("\n", " ")


def test_a_second_sampler_is_refused(tmp_path, questions):
    with CandidateLog(tmp_path / "c.jsonl"), pytest.raises(CellDualityError, match="is appending to it"):
        run(questions(1), Rule(), tmp_path / "c.jsonl")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"candidates": 0}, "candidates"),
        ({"budget_usd": 1.0}, "needs price_in and price_out"),
        ({"cost": 1}, "cost"),
    ],
)
def test_settings_that_do_not_hold(values, words):
    with pytest.raises(CellDualityError, match=words):
        SampleSettings.read(values)
