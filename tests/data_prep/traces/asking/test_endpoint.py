"""A teacher behind a chat server; what goes wrong below HTTP is tested in tests/policies/test_addresses.py."""

from __future__ import annotations

import asyncio
import logging

import pytest

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.parsing import MAX_CHARACTERS, split_response
from data_prep.traces.asking.endpoint import INSTRUCTIONS, EndpointTeacher
from tests.data_prep.traces.asking.conftest import ANSWER, KEY, Completed, body, question
from tests.refused import refused

ESTIMATED = (len(INSTRUCTIONS) + len("question 0")) // 3


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
    assert server.asked == [{"model": "toy", "max_tokens": 1024, "seed": 3, "temperature": 1.0, "messages": messages}]
    assert teacher.name == "toy@127.0.0.1"


def test_a_body_that_is_no_completion_is_asked_for_again(server, teacher):
    malformed = b'{"choices": [{"mess', b'{"error": {"message": "overloaded"}}', b"[" * 100_000, b"\xff\xfe<html>"
    server.script = [*(Completed(body=content) for content in malformed), Completed(500, b"{}")]
    (reply,) = ask(teacher)
    assert reply.text == ANSWER
    assert teacher.retried == {"malformed": 4, "http_5xx": 1}


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
    (error,) = ask(teacher)
    assert isinstance(error, CellDualityError)
    assert error.code == code
    assert KEY not in str(error)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("changed", "text", "finish", "tokens"),
    [
        ({"choices": []}, "", "", 120),
        ({"choices": [None]}, "", "", 120),
        ({"choices": [{"message": {"content": None}, "finish_reason": "content_filter"}]}, "", "content_filter", 120),
        ({"choices": [{"message": {"content": "CD79A"}, "finish_reason": None}]}, "CD79A", "", 120),
        ({"choices": [{"message": {"content": [{"type": "text", "text": ANSWER}]}}]}, ANSWER, "", 120),
        ({"choices": [{"message": {"content": "B", "reasoning_content": "A."}}]}, "<think>A.</think>B", "", 120),
        ({"usage": None}, ANSWER, "stop", ESTIMATED + len(ANSWER) // 3),
        ({"usage": {"prompt_tokens": -1, "completion_tokens": "many"}}, ANSWER, "stop", ESTIMATED + len(ANSWER) // 3),
    ],
)
def test_odd_completions_are_replies(server, teacher, changed, text, finish, tokens):
    server.script = [Completed(body=body(**changed))]
    (reply,) = ask(teacher)
    assert (reply.text, reply.finish, reply.tokens.total) == (text, finish, tokens)
    assert not teacher.retried


def test_a_reply_is_bounded_and_seen_to_be_too_long(server, teacher):
    server.script = [Completed(body=body("x" * (MAX_CHARACTERS + 5000)))]
    (reply,) = ask(teacher)
    assert len(reply.text) == MAX_CHARACTERS + 1
    assert split_response(reply.text).failure == "too_long"


def test_the_key_goes_to_the_endpoint_alone(server, teacher, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    server.script = [Completed(body=body(f"your header was Bearer {KEY}")), Completed(500, KEY.encode())]
    replies = ask(teacher, 0, 1)
    assert server.keys == {f"Bearer {KEY}"}
    shown = [repr(replies), repr(teacher), repr(vars(teacher)), teacher.version, caplog.text, *capfd.readouterr()]
    assert all(KEY not in text for text in shown)
    assert "Bearer ***" in repr(replies)


def test_keys_and_addresses(monkeypatch, server):
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with refused("no-key"):
        EndpointTeacher("gpt-4o")
    with refused("no-address"):
        EndpointTeacher("gpt-4o", "localhost:8000")
    (reply,) = ask(EndpointTeacher("toy", server.url + "/"))  # a server of one's own needs no key
    assert reply.text == ANSWER


def test_the_version_names_what_decides_the_answer(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    warm, seeded, own = {"temperature": 0.5}, {"seed": 1}, {"base_url": "http://h/v1"}
    changes = [{}, warm, {"temperature": None}, {"max_tokens": 5}, seeded, own]
    versions = [EndpointTeacher("gpt-4o", **changed).version for changed in changes]
    assert len(set(versions)) == len(changes)
    again = EndpointTeacher("gpt-4o", retries=1, timeout=3).version
    assert again == versions[0] == "ef018c3f7179", "candidates of earlier runs would be asked for again"
