"""A teacher behind a chat server; what goes wrong below HTTP is tested in tests/policies/test_addresses.py."""

from __future__ import annotations

import asyncio

import pytest

from cellduality_plugin.parsing import MAX_CHARACTERS
from data_prep.traces.asking.endpoint import INSTRUCTIONS, EndpointTeacher
from tests.data_prep.traces.asking.conftest import ANSWER, Completed, body, questions
from tests.refused import refused

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
        (401, '{"error": {"message": "bad key"}}', {}, "key-refused"),
        (403, "{}", {}, "key-refused"),
        (404, '{"error": {"message": "The model does not exist"}}', {}, "no-model"),
        (402, "{}", {}, "no-credit"),
        (429, '{"error": {"message": "quota", "code": "insufficient_quota"}}', {}, "no-credit"),
        (429, "{}", {"Retry-After": "3600"}, "long-wait"),
    ],
)
def test_what_no_question_would_survive_ends_the_run(server, teacher, status, content, headers, code):
    server.usual = lambda *asked: Completed(status, content.encode(), headers=headers)
    with refused(code):
        ask(teacher)
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
