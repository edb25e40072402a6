"""Whatever an endpoint says, what is read is what was asked for, or a PolicyError."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.policies.base import PolicyError
from cellduality_plugin.policies.replies import read_chat, read_context, read_log_probs, read_text

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
# Near misses: the right shape with anything in one place of it.
NEAR = (
    JSON
    | JSON.map(lambda value: {"choices": value})
    | JSON.map(lambda value: {"choices": [value]})
    | JSON.map(lambda value: {"choices": [{"text": "", "token_ids": value, "prompt_logprobs": value}]})
    | JSON.map(lambda value: {"choices": [{"text": "", "prompt_logprobs": [None, value]}]})
    | JSON.map(lambda value: {"choices": [{"text": "", "prompt_logprobs": [None, {"5": {"logprob": value}}]}]})
    | JSON.map(lambda value: {"choices": [{"message": value}]})
    | JSON.map(lambda value: {"data": [{"id": "toy", "max_model_len": value}]})
)


def cause_or(read: Callable[..., Any], *arguments: Any) -> Any:
    """Return what is read, or the cause of why nothing is, set apart by an exclamation mark."""
    try:
        return read(*arguments)
    except PolicyError as error:
        return f"!{error.cause}"


@given(st.binary(max_size=40) | NEAR.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_read_or_refused(body):
    found = cause_or(read_text, body)
    if found != "!malformed":
        text, tokens = found
        assert isinstance(text, str)
        assert tokens is None or all(type(token) is int and token >= 0 for token in tokens)
    found = cause_or(read_log_probs, body, [4, 5], 1)
    if found not in ("!malformed", "!no_log_probs", "!not_a_number"):
        assert found[0] == -math.inf or math.isfinite(found[0])
    assert isinstance(cause_or(read_chat, body), str)
    length = cause_or(read_context, body, "toy")
    assert length in (None, "!malformed", "!no_such_model") or length > 0


@pytest.mark.parametrize(
    ("told", "cause"),
    [
        ("NaN", "not_a_number"),
        ("Infinity", "not_a_number"),
        ("-Infinity", "not_a_number"),
        ("0.5", "not_a_number"),
        ("1" + "0" * 400, "not_a_number"),
        ("true", "malformed"),
        ('"-1"', "malformed"),
        ("null", "malformed"),
    ],
)
def test_what_is_no_log_probability_is_named(told, cause):
    body = b'{"choices": [{"text": "", "prompt_logprobs": [null, {"5": {"logprob": %s}}]}]}' % told.encode()
    assert cause_or(read_log_probs, body, [4, 5], 1) == f"!{cause}"


@pytest.mark.parametrize("body", [b'{"choices": [{"text": "\xff\xfe"}]}', b"[" * 100_000, b""])
def test_a_body_that_is_not_utf_8_or_nested_without_end_is_malformed(body):
    assert cause_or(read_text, body) == "!malformed"


def test_another_token_than_the_one_sent_is_no_answer_and_minus_infinity_is_one():
    body = b'{"choices": [{"text": "", "prompt_logprobs": [null, {"6": {"logprob": -9999.0}}]}]}'
    assert cause_or(read_log_probs, body, [4, 5], 1) == "!malformed"
    assert read_log_probs(body, [4, 6], 1) == [-math.inf]
