"""Bodies that are requests or replies, bodies that are not, which field is named of those; and who may ask."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.openrlhf_hooks.remote.protocol import (
    TOKEN_VARIABLE,
    Malformed,
    allowed,
    find_token,
    read_reply,
    read_request,
)
from tests.refused import refused

GOOD = {"query": ["ab", "cd"], "prompts": ["a", "c"], "labels": ["1", "2"]}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
REPLY = b'{"rewards": 0.5, "scores": 0.5, "extra_logs": {"dual_reward": 0.5}}'


@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=5))
def test_what_was_sent_is_read_in_its_order(rollouts):
    fields = dict(zip(GOOD, map(list, zip(*rollouts, strict=True)), strict=True))
    assert read_request(json.dumps({**fields, "more": 1}).encode()) == rollouts


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(body):
    with pytest.raises(Malformed):
        read_request(body)


def test_a_reply_that_openrlhf_could_not_train_on_is_malformed():
    wrong = (REPLY.replace(b"0.5,", value + b",", 1) for value in (b"NaN", b"true", b"null"))
    of_one = b"\xff", b"[]", *wrong, b'{"rewards": 0.5, "scores": 0.5}', REPLY.replace(b"0.5}", b"Infinity}")
    of_two = b'{"rewards": [0.5], "scores": [0.5], "extra_logs": {}}', REPLY
    for body, rollouts in [*((body, 1) for body in of_one), *((body, 2) for body in of_two)]:
        with pytest.raises(Malformed):
            read_reply(body, rollouts)
    lists = {"rewards": [0, 1], "scores": [0, 1], "extra_logs": {"dual_reward": [0.0, 1.0]}}
    assert read_reply(json.dumps({**lists, "further": 1}).encode(), 2) == lists


def test_a_token_is_made_for_this_machine_alone(monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    (one, made), (other, _) = find_token("127.0.0.1"), find_token("::1")
    assert made
    assert allowed(f"Bearer {one}", one)
    headers = f"Bearer {one}", "Bearer ünï", "Basic \ud800", "Basic QQ==", "Basic" + "A" * 10_000, " " * 50
    assert not any(allowed(header, other) for header in headers)
    for host in ("0.0.0.0", "::", "10.0.0.7", "rewards.lab", ""):
        with refused("no-token"):
            find_token(host)
    monkeypatch.setenv(TOKEN_VARIABLE, "0123456789abcdef")
    assert find_token("0.0.0.0") == find_token("127.0.0.1") == ("0123456789abcdef", False)


def test_a_weak_token_is_refused_and_not_shown(monkeypatch):
    for token in ("short", "with a blank in the middle", "ünïcödé-ünïcödé-ü", "tab\tor-a-new-line\n"):
        monkeypatch.setenv(TOKEN_VARIABLE, token)
        with refused("weak-token") as caught:
            find_token("127.0.0.1")
        assert token not in str(caught.value)
