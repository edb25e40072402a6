"""A teacher behind a chat server; what goes wrong below HTTP is tested in tests/policies/test_addresses.py."""

from __future__ import annotations

import asyncio
import logging

import pytest

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.parsing import MAX_CHARACTERS, split_response
from data_prep.traces.asking.endpoint import INSTRUCTIONS, EndpointTeacher
from tests.data_prep.traces.asking.conftest import ANSWER, KEY


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
    messages = [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": "question 0"}]
    assert server.bodies == [{"model": "toy", "max_tokens": 1024, "seed": 3, "temperature": 1.0, "messages": messages}]
    assert teacher.name == "toy@127.0.0.1"


@pytest.mark.parametrize(
    ("cause", "body"),
    [
        ("malformed", b'{"choices": [{"mess'),
        ("malformed", b'{"error": {"message": "overloaded"}}'),
        ("malformed", b"[" * 100_000),
        ("malformed", b"\xff\xfe<html>"),
    ],
)
def test_a_body_that_is_no_completion_is_asked_for_again(server, teacher, questions, said, cause, body):
    server.script = [said(body=body), said(500, b"{}")]
    (reply,) = ask(teacher, *questions(1))
    assert reply.text == ANSWER
    assert teacher.retried == {cause: 1, "http_5xx": 1}


@pytest.mark.parametrize(("status", "cause", "times"), [(503, "http_5xx", 4), (400, "http_400", 1)])
def test_a_question_that_is_given_up_tells_why(server, teacher, questions, said, status, cause, times):
    server.usual = lambda *asked: said(status, b'{"error": {"message": "what is\\nwrong"}}')
    (failure,) = ask(teacher, *questions(1))
    assert (failure.cause, failure.detail) == (cause, "what is wrong")
    assert len(server.asked) == times


@pytest.mark.parametrize(
    ("status", "body", "headers", "words"),
    [
        (401, f'{{"error": {{"message": "bad {KEY}"}}}}', {}, "the key was refused (http_401) bad ***"),
        (403, "{}", {}, "set OPENAI_API_KEY"),
        (404, '{"error": {"message": "The model does not exist"}}', {}, "no model 'toy'"),
        (402, "{}", {}, "no credit left"),
        (429, '{"error": {"message": "quota", "code": "insufficient_quota"}}', {}, "no credit left"),
        (429, "{}", {"Retry-After": "3600"}, "60 minutes"),
    ],
)
def test_what_no_question_would_survive_ends_the_run(server, teacher, questions, said, status, body, headers, words):
    server.usual = lambda *asked: said(status, body.encode(), headers=headers)
    (error,) = ask(teacher, *questions(1))
    assert isinstance(error, CellDualityError)
    assert words in str(error)
    assert KEY not in str(error)
    assert len(server.asked) == 1


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
    assert (reply.completion_tokens, reply.prompt_tokens) == (100, (len(INSTRUCTIONS) + len("question 0")) // 3)


def test_the_key_is_sent_and_shown_nowhere(server, teacher, questions, said, body, key, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    server.script = [said(body=body(f"your header was Bearer {key}")), said(500, key.encode())]
    replies = ask(teacher, *questions(1), 0, 1)
    assert server.keys == {f"Bearer {key}"}
    shown = [repr(replies), repr(teacher), repr(vars(teacher)), teacher.version, caplog.text, *capfd.readouterr()]
    assert all(key not in text for text in shown)
    assert "Bearer ***" in repr(replies)


def test_keys_and_addresses(monkeypatch, server, questions):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(CellDualityError, match="OPENAI_API_KEY is not set"):
        EndpointTeacher("gpt-4o")
    with pytest.raises(CellDualityError, match="no http address"):
        EndpointTeacher("gpt-4o", "localhost:8000")
    (reply,) = ask(EndpointTeacher("toy", server.url + "/"), *questions(1))  # a server of one's own needs no key
    assert reply.text == ANSWER


def test_the_version_tells_what_decides_the_answer(key):
    changes = [
        {}, {"temperature": 0.5}, {"temperature": None}, {"max_tokens": 5}, {"seed": 1}, {"instructions": "Answer."},
        {"base_url": "http://localhost:8000/v1"},
    ]  # fmt: skip
    versions = [EndpointTeacher("gpt-4o", **changed).version for changed in changes]
    assert len(set(versions)) == 7
    assert EndpointTeacher("gpt-4o", retries=1, timeout=3).version == versions[0]
