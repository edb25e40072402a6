"""A teacher behind a chat server; what goes wrong below HTTP is tested in tests/policies/test_addresses.py."""

from __future__ import annotations

import asyncio
import logging

import pytest

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.parsing import MAX_CHARACTERS, split_response
from data_prep.traces.asking.endpoint import INSTRUCTIONS, EndpointTeacher
from tests.data_prep.traces.asking.conftest import ANSWER, KEY, body, question
from tests.refused import refused


def ask(teacher, *numbers):
    """Return the replies, or the errors in their place, to candidates of one question asked at the same time."""

    async def all_of_them():
        teacher.open(8)
        try:
            asking = (teacher.answer(question(0), number) for number in numbers or (0,))
            return await asyncio.gather(*asking, return_exceptions=True)
        finally:
            await teacher.close()

    return asyncio.run(all_of_them())


def test_a_reply_and_what_was_asked_for_it(server, teacher):
    (reply,) = ask(teacher, 3)
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens, reply.finish) == (ANSWER, 100, 20, "stop")
    messages = [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": "question 0"}]
    assert server.bodies == [{"model": "toy", "max_tokens": 1024, "seed": 3, "temperature": 1.0, "messages": messages}]
    assert teacher.name == "toy@127.0.0.1"


@pytest.mark.parametrize(
    "malformed",
    [
        b'{"choices": [{"mess', b'{"error": {"message": "overloaded"}}', b"[" * 100_000, b"\xff\xfe<html>",
    ],
)  # fmt: skip
def test_a_body_that_is_no_completion_is_asked_for_again(server, teacher, said, malformed):
    server.script = [said(body=malformed), said(500, b"{}")]
    (reply,) = ask(teacher)
    assert reply.text == ANSWER
    assert teacher.retried == {"malformed": 1, "http_5xx": 1}


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
def test_what_no_question_would_survive_ends_the_run(server, teacher, said, status, content, headers, code):
    server.usual = lambda *asked: said(status, content.encode(), headers=headers)
    (error,) = ask(teacher)
    assert isinstance(error, CellDualityError)
    assert error.code == code
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
def test_odd_choices_are_replies(server, teacher, said, changed, text, finish):
    server.script = [said(body=body(**changed))]
    (reply,) = ask(teacher)
    assert (reply.text, reply.finish, reply.prompt_tokens) == (text, finish, 100)
    assert not teacher.retried


def test_a_reply_is_bounded_and_seen_to_be_too_long(server, teacher, said):
    server.script = [said(body=body("x" * (MAX_CHARACTERS + 5000)))]
    (reply,) = ask(teacher)
    assert len(reply.text) == MAX_CHARACTERS + 1
    assert split_response(reply.text).failure == "too_long"


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": -1, "completion_tokens": "many"}])
def test_tokens_are_estimated_where_none_are_counted(server, teacher, said, usage):
    server.script = [said(body=body("x" * 300, usage=usage))]
    (reply,) = ask(teacher)
    assert (reply.completion_tokens, reply.prompt_tokens) == (100, (len(INSTRUCTIONS) + len("question 0")) // 3)


def test_the_key_goes_to_the_endpoint_alone(server, teacher, said, key, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    server.script = [said(body=body(f"your header was Bearer {key}")), said(500, key.encode())]
    replies = ask(teacher, 0, 1)
    assert server.keys == {f"Bearer {key}"}
    shown = [repr(replies), repr(teacher), repr(vars(teacher)), teacher.version, caplog.text, *capfd.readouterr()]
    assert all(key not in text for text in shown)
    assert "Bearer ***" in repr(replies)


def test_keys_and_addresses(monkeypatch, server):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with refused("no-key"):
        EndpointTeacher("gpt-4o")
    with refused("no-address"):
        EndpointTeacher("gpt-4o", "localhost:8000")
    (reply,) = ask(EndpointTeacher("toy", server.url + "/"))  # a server of one's own needs no key
    assert reply.text == ANSWER


def test_the_version_names_what_decides_the_answer(key):
    changes = [
        {}, {"temperature": 0.5}, {"temperature": None}, {"max_tokens": 5}, {"seed": 1},
        {"base_url": "http://localhost:8000/v1"},
    ]  # fmt: skip
    versions = [EndpointTeacher("gpt-4o", **changed).version for changed in changes]
    assert len(set(versions)) == len(changes)
    assert EndpointTeacher("gpt-4o", retries=1, timeout=3).version == versions[0] == "ef018c3f7179", (
        "candidates of earlier runs would be asked for again"
    )
