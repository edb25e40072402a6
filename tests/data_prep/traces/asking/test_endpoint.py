import asyncio
import gzip
import logging
import time

import pytest

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.parsing import MAX_CHARACTERS, split_response
from data_prep.traces.asking.budget import PaidTeacher
from data_prep.traces.asking.endpoint import INSTRUCTIONS, LONGEST_PAUSE, EndpointTeacher
from cellduality_plugin.policies.http import RequestFailed

ANSWER = "<think>CD79A ranks high.</think><answer>B cell</answer>"


def ask(teacher, question, *numbers):
    """Return the replies, or the errors in their place, of questions asked at the same time."""

    async def all_of_them():
        try:
            asking = (teacher.answer(question, number) for number in numbers or (0,))
            return await asyncio.gather(*asking, return_exceptions=True)
        finally:
            await teacher.close()

    return asyncio.run(all_of_them())


def test_a_reply_and_what_was_asked_for_it(server, teacher, questions):
    (asked,) = questions(1)
    (reply,) = ask(teacher, asked, 3)
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens, reply.finish) == (ANSWER, 100, 20, "stop")
    assert server.bodies == [
        {
            "model": "toy",
            "max_tokens": 1024,
            "seed": 3,
            "temperature": 1.0,
            "messages": [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": "question 0"}],
        }
    ]
    assert not [name for name in server.headers if "stainless" in name]  # nothing tells of the machine
    assert isinstance(teacher, PaidTeacher)
    assert teacher.name == "toy@127.0.0.1"


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503])
def test_passing_statuses_are_asked_again_and_counted(server, teacher, questions, said, status):
    server.script = [said(status, b"{}"), said(status, b"no json")]
    (reply,) = ask(teacher, *questions(1))
    assert reply.text == ANSWER
    assert teacher.retried == {str(status): 2}
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("reason", "fault"),
    [
        ("timeout", {"after": 0.4}),
        ("connection", {"cut": True}),
        ("malformed", {"body": b'{"choices": [{"mess'}),
        ("malformed", {"body": b'{"error": {"message": "overloaded"}}'}),
        ("malformed", {"body": b"[" * 100_000}),
        ("malformed", {"body": b"\xff\xfe<html>", "headers": {"content-type": "text/html"}}),
        ("connection", {"body": b"{}", "headers": {"transfer-encoding": "chunked"}}),  # no chunks follow
    ],
)
def test_faults_below_http_are_told_apart(server, key, questions, said, reason, fault):
    teacher = EndpointTeacher("toy", server.url, timeout=0.2, retries=1, backoff=0.01)
    server.script = [said(**fault)]
    (reply,) = ask(teacher, *questions(1))
    assert reply.text == ANSWER
    assert teacher.retried == {reason: 1}


def test_nobody_listens(server, key, questions):
    teacher = EndpointTeacher("toy", "http://127.0.0.1:9/v1", retries=2, backoff=0.01)
    (fault,) = ask(teacher, *questions(1))
    assert isinstance(fault, RequestFailed)
    assert (fault.reason, teacher.retried) == ("connection", {"connection": 2})


def test_a_fault_that_outlasts_its_retries_is_raised(server, teacher, questions, said):
    server.usual = lambda *asked: said(503, b'{"error": {"message": "model is\\noverloaded"}}')
    (fault,) = ask(teacher, *questions(1))
    assert (fault.reason, fault.detail) == ("503", "model is overloaded")
    assert len(server.asked) == 4
    assert teacher.retried == {"503": 3}


def test_what_the_endpoint_does_not_take_is_not_asked_again(server, teacher, questions, said):
    server.usual = lambda *asked: said(400, b'{"error": {"message": "context too long"}}')
    (fault,) = ask(teacher, *questions(1))
    assert (fault.reason, fault.detail) == ("400", "context too long")
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, b'{"error": {"message": "bad key sk-test-0123456789abcdef"}}', "the key was refused (401): bad key ***"),
        (403, b"{}", "set OPENAI_API_KEY"),
        (404, b'{"error": {"message": "The model does not exist"}}', "no model 'toy'"),
        (402, b"{}", "no credit left"),
        (429, b'{"error": {"message": "quota", "code": "insufficient_quota"}}', "no credit left"),
    ],
)
def test_what_no_question_would_survive_ends_the_run(server, teacher, questions, said, status, body, words, key):
    server.usual = lambda *asked: said(status, body)
    (error,) = ask(teacher, *questions(1))
    assert isinstance(error, CellDualityError)
    assert words in str(error)
    assert "teacher toy@127.0.0.1" in str(error)
    assert key not in str(error)
    assert len(server.asked) == 1


@pytest.mark.parametrize("header", [{"Retry-After": "0.3"}, {"retry-after-ms": "300"}])
def test_retry_after_pauses_all_requests(server, teacher, questions, said, header):
    server.script = [said(429, b"{}", headers=header)]

    async def two():
        first = asyncio.create_task(teacher.answer(*questions(1), 0))
        await asyncio.sleep(0.1)  # the pause is on
        await asyncio.gather(first, teacher.answer(*questions(1), 1))
        await teacher.close()

    asyncio.run(two())
    first, *others = server.moments
    assert len(others) == 2
    assert all(0.29 < moment - first < 0.8 for moment in others)


def test_a_used_up_allowance_pauses_all_requests(server, teacher, questions, said):
    used_up = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "200ms"}
    left = {"x-ratelimit-remaining-tokens": "5", "x-ratelimit-reset-tokens": "1h"}
    server.script = [said(headers={**used_up, **left})]

    async def one_by_one():
        for number in range(3):
            await teacher.answer(*questions(1), number)
        await teacher.close()

    asyncio.run(one_by_one())
    first, second, third = server.moments
    assert 0.19 < second - first < 0.6
    assert third - second < 0.19


def test_an_endpoint_that_asks_to_wait_for_hours_ends_the_run(server, teacher, questions, said):
    server.script = [said(429, b"{}", headers={"Retry-After": str(LONGEST_PAUSE * 4)})]
    begun = time.monotonic()
    (error,) = ask(teacher, *questions(1))
    assert isinstance(error, CellDualityError)
    assert "60 minutes" in str(error)
    assert time.monotonic() - begun < 1


@pytest.mark.parametrize(
    ("changed", "text", "finish"),
    [
        ({"choices": []}, "", ""),
        ({"choices": [None]}, "", ""),
        ({"choices": [{"message": {"content": None}, "finish_reason": "content_filter"}]}, "", "content_filter"),
        ({"choices": [{"message": {"content": "CD79A"}, "finish_reason": None}]}, "CD79A", ""),
        ({"choices": [{"message": {"content": [{"type": "text", "text": ANSWER}]}}]}, ANSWER, ""),
        (
            {"choices": [{"message": {"content": "<answer>B</answer>", "reasoning_content": "CD79A."}}]},
            "<think>CD79A.</think><answer>B</answer>",
            "",
        ),
    ],
)
def test_odd_choices_are_replies(server, teacher, questions, said, body, changed, text, finish):
    server.script = [said(body=body(**changed))]
    (reply,) = ask(teacher, *questions(1))
    assert (reply.text, reply.finish, reply.prompt_tokens) == (text, finish, 100)
    assert not teacher.retried


def test_a_reply_is_bounded_and_seen_to_be_too_long(server, teacher, questions, said, body):
    server.script = [said(body=body("x" * (MAX_CHARACTERS + 5000)))]
    (reply,) = ask(teacher, *questions(1))
    assert len(reply.text) == MAX_CHARACTERS + 1
    assert split_response(reply.text).failure == "too_long"


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": -1, "completion_tokens": "many"}])
def test_tokens_are_reckoned_where_none_are_told(server, teacher, questions, said, body, usage):
    server.script = [said(body=body("x" * 300, usage=usage))]
    (reply,) = ask(teacher, *questions(1))
    assert reply.completion_tokens == 100
    assert reply.prompt_tokens == (len(INSTRUCTIONS) + len("question 0")) // 3


def test_the_key_is_sent_and_shown_nowhere(server, teacher, questions, said, body, key, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    server.script = [said(body=body(f"your header was Bearer {key}")), said(500, key.encode())]
    replies = ask(teacher, *questions(1), 0, 1)
    assert server.keys == {f"Bearer {key}"}
    captured = capfd.readouterr()
    shown = [repr(replies), repr(teacher), repr(vars(teacher)), teacher.version, caplog.text, *captured]
    assert all(key not in text for text in shown)
    assert "Bearer ***" in repr(replies)


def test_keys_and_addresses(monkeypatch, server, questions):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(CellDualityError, match=r"no key .*set OPENAI_API_KEY"):
        EndpointTeacher("gpt-4o")
    with pytest.raises(CellDualityError, match="not an http address"):
        EndpointTeacher("gpt-4o", "localhost:8000")
    monkeypatch.setenv("MY_KEY", "naïve")
    with pytest.raises(CellDualityError, match="MY_KEY holds what no key holds") as caught:
        EndpointTeacher("gpt-4o", api_key_env="MY_KEY")
    assert "naïve" not in str(caught.value)
    (reply,) = ask(EndpointTeacher("toy", server.url + "/"), *questions(1))  # a server of one's own needs no key
    assert reply.text == ANSWER


def test_the_version_tells_what_decides_the_answer(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "a key of some length")
    plain = EndpointTeacher("gpt-4o")
    versions = {
        EndpointTeacher("gpt-4o", **changed).version
        for changed in (
            {},
            {"temperature": 0.5},
            {"temperature": None},
            {"max_tokens": 5},
            {"seed": 1},
            {"instructions": "Answer."},
            {"base_url": "http://localhost:8000/v1"},
        )
    }
    assert len(versions) == 7
    assert EndpointTeacher("gpt-4o", retries=1, timeout=3).version == plain.version
    assert len(plain.version) == 12


def test_a_zipped_answer_and_a_proxy(server, questions, said, body, monkeypatch):
    server.script = [said(body=gzip.compress(body()), headers={"content-encoding": "gzip"})]
    monkeypatch.setenv("http_proxy", server.url.removeprefix("http://").removesuffix("/v1"))
    (reply,) = ask(EndpointTeacher("toy", "http://nowhere.invalid/v1", retries=0), *questions(1))
    assert reply.text == ANSWER
    monkeypatch.setenv("no_proxy", "nowhere.invalid")
    (fault,) = ask(EndpointTeacher("toy", "http://nowhere.invalid/v1", retries=0), *questions(1))
    assert fault.reason == "connection"
