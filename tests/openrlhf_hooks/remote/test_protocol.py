"""Bodies that are requests or replies, bodies that are not, and which field is named of those."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.openrlhf_hooks.remote.protocol import MAX_ITEMS, Malformed, read_reply, read_request

GOOD = {"query": ["ab", "cd"], "prompts": ["a", "c"], "labels": ["1", "2"]}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
REPLY = b'{"rewards": 0.5, "scores": 0.5, "extra_logs": {"dual_reward": 0.5}}'


@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=5))
def test_what_was_sent_is_read_in_its_order(rollouts):
    fields = dict(zip(GOOD, map(list, zip(*rollouts, strict=True)), strict=True))
    assert read_request(json.dumps({**fields, "more": 1}).encode()) == rollouts


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"query": "ab"}, "query"),
        ({"query": []}, "query"),
        ({"query": ["a"] * (MAX_ITEMS + 1)}, "query"),
        ({"prompts": ["a", None]}, r"prompts\[1\]"),
        ({"prompts": ["a", "\udc80"]}, "body"),
        ({"labels": ["1"]}, "labels"),
        *(({name: None}, name) for name in GOOD),
    ],
)
def test_the_field_that_is_wrong_is_named(change, field):
    with pytest.raises(Malformed, match=f"^{field}: "):
        read_request(json.dumps({**GOOD, **change}).encode())


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(body):
    with pytest.raises(Malformed):
        read_request(body)


@pytest.mark.parametrize(
    ("body", "rollouts"),
    [
        (b"\xff", 1),
        (b"[]", 1),
        (REPLY.replace(b"0.5,", b"NaN,", 1), 1),
        (REPLY.replace(b"0.5,", b"true,", 1), 1),
        (REPLY.replace(b"0.5,", b"null,", 1), 1),
        (b'{"rewards": 0.5, "scores": 0.5}', 1),
        (REPLY.replace(b"0.5}", b"Infinity}"), 1),
        (b'{"rewards": [0.5], "scores": [0.5], "extra_logs": {}}', 2),
        (REPLY, 2),
    ],
)
def test_a_reply_that_openrlhf_could_not_train_on_is_malformed(body, rollouts):
    with pytest.raises(Malformed):
        read_reply(body, rollouts)


def test_a_reply_to_several_rollouts_is_of_lists():
    body = b'{"rewards": [0, 1], "scores": [0, 1], "extra_logs": {"dual_reward": [0.0, 1.0]}, "further": 1}'
    assert read_reply(body, 2) == {"rewards": [0, 1], "scores": [0, 1], "extra_logs": {"dual_reward": [0.0, 1.0]}}
