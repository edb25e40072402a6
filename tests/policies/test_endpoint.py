"""The policy behind a real HTTP server that speaks as vLLM does."""

from __future__ import annotations

import asyncio
import copy
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.chat import render
from cellduality_plugin.policies.base import PolicyError
from cellduality_plugin.policies.endpoint import EndpointPolicy, read_chat, read_context, read_log_probs, read_text
from cellduality_plugin.policies.settings import DualSettings, EndpointSettings

PROMPT = "CD74 CD79A"


def policy_of(server: Any, dual: DualSettings | None = None, **settings: Any) -> EndpointPolicy:
    chosen = EndpointSettings(urls=(server.url,), model="toy", **{"retries": 0, **settings})
    return EndpointPolicy(server.tokenizer, chosen, dual or DualSettings())


def ask(server: Any, call: str, *arguments: Any, **settings: Any) -> Any:
    """Return what a new policy answers, or the cause of its failure."""
    drawn = {name: settings.pop(name) for name in ("seed", "temperature", "given") if name in settings}

    async def one() -> Any:
        policy = policy_of(server, **settings)
        try:
            return await getattr(policy, call)(*arguments, **drawn)
        except PolicyError as error:
            return error.cause
        finally:
            await policy.close()

    return asyncio.run(one())


def test_it_sends_the_tokens_of_a_rollout_and_decodes_those_that_come_back(policy_server):
    policy_server.text = "<answer>CD19+ B</answer>"
    assert ask(policy_server, "generate", PROMPT) == "<answer> CD19+ B </answer>"
    dual = DualSettings(temperature=0.7, max_new_tokens=5)
    ask(policy_server, "generate", PROMPT, dual=dual)
    ask(policy_server, "generate", PROMPT, dual=dual, seed=3, temperature=0.5)
    greedy, drawn, own = policy_server.asked
    assert greedy["prompt"] == render(policy_server.tokenizer, PROMPT)
    assert (greedy["temperature"], greedy["max_tokens"]) == (0.0, 256 - len(greedy["prompt"]))
    assert (greedy["top_p"], greedy["top_k"], greedy["min_p"], greedy["repetition_penalty"]) == (1.0, 0, 0.0, 1.0)
    assert (drawn["temperature"], drawn["max_tokens"], "seed" in drawn) == (0.7, 5, False)
    assert (own["temperature"], own["max_tokens"], own["seed"]) == (0.5, 5, 3)


def test_tags_that_are_special_tokens_stay_and_what_ends_a_sequence_goes(policy_server):
    policy_server.tokenizer = copy.deepcopy(policy_server.tokenizer)
    policy_server.tokenizer.add_special_tokens({"additional_special_tokens": ["<answer>", "</answer>"]})
    policy_server.text = "<answer>CD19+ B</answer><pad>"
    assert ask(policy_server, "generate", PROMPT).split() == ["<answer>", "CD19+", "B", "</answer>"]


def test_a_chat_endpoint_is_sent_a_message(policy_server):
    policy_server.text, how = "<answer>LYZ</answer>", {"seed": 3, "temperature": 0.5}
    dual, messages = DualSettings(max_new_tokens=9), [{"role": "user", "content": PROMPT}]
    assert ask(policy_server, "generate", PROMPT, dual=dual, kind="chat", **how) == policy_server.text
    assert policy_server.asked == [{"model": "toy", "messages": messages, "max_tokens": 9, **how}]


def test_log_probs_are_those_of_the_response_after_what_is_given(policy_server):
    policy_server.log_prob = lambda place: -float(place)
    start = len(render(policy_server.tokenizer, PROMPT))
    whole = ask(policy_server, "log_probs", PROMPT, "LYZ CST3 FTL")
    assert whole == [-float(start), -float(start + 1), -float(start + 2)]
    assert ask(policy_server, "log_probs", PROMPT, " CST3 FTL", given="LYZ") == whole[1:]
    found = ask(policy_server, "choice_log_probs", PROMPT, ["LYZ CST3 FTL", "LYZ FTL CST3", "LYZ FTL NKG7"])
    assert found == [-float(start + 1), -float(2 * start + 3), -float(2 * start + 3)]


@pytest.mark.parametrize(
    ("call", "arguments", "settings", "context", "cause"),
    [
        ("generate", [PROMPT * 300], {}, 256, "prompt_too_long"),
        ("log_probs", [PROMPT, "LYZ " * 300], {}, 256, "prompt_too_long"),
        ("generate", [PROMPT], {"max_length": 5}, 256, "prompt_too_long"),
        ("generate", [PROMPT], {}, None, "context_unknown"),
        ("log_probs", [PROMPT, "LYZ"], {"kind": "chat"}, 256, "no_log_probs"),
        ("choice_log_probs", [PROMPT, ["LYZ", "CST3"]], {"kind": "chat"}, 256, "no_log_probs"),
    ],
)
def test_what_cannot_be_answered_is_not_sent(policy_server, call, arguments, settings, context, cause):
    policy_server.context = context
    assert ask(policy_server, call, *arguments, **settings) == cause
    assert policy_server.asked == []


def test_a_context_that_the_endpoint_does_not_tell_may_be_set(policy_server):
    policy_server.context = None
    for settings in ({"dual": DualSettings(max_new_tokens=5)}, {"max_length": 100}):
        assert ask(policy_server, "generate", PROMPT, **settings) == ""


def test_whether_it_answers_is_known_though_every_turn_is_taken(policy_server, said):
    policy_server.after = 1.0

    async def beside_a_slow_one() -> bool:
        policy = policy_of(policy_server, concurrency=1)
        slow = asyncio.ensure_future(policy.generate(PROMPT))
        while not policy_server.asked:
            await asyncio.sleep(0.01)
        await policy.check()
        first = not slow.done()
        await slow
        await policy.close()
        return first

    assert asyncio.run(beside_a_slow_one())
    policy_server.answer = lambda path, body: said(body=b'{"data": [{"id": "another"}]}')
    assert ask(policy_server, "check") == "no_such_model"
    policy_server.stop()
    assert ask(policy_server, "check") == "refused"


def test_the_context_is_asked_for_once_and_again_only_after_a_failure(policy_server, said):
    answer, models = policy_server.answer, []

    def counted(path: str, body: dict[str, Any]) -> Any:
        models.extend([path] if path == "/v1/models" else [])
        return said(status=404) if path == "/v1/models" and len(models) == 1 else answer(path, body)

    policy_server.answer = counted

    async def twice_three() -> list[str]:
        policy = policy_of(policy_server)
        found: list[Any] = []
        for _ in range(2):
            found += await asyncio.gather(*(policy.generate(PROMPT) for _ in range(3)), return_exceptions=True)
        await policy.close()
        return list(map(str, found))

    assert asyncio.run(twice_three()) == ["http_404"] * 3 + [""] * 3
    assert len(models) == 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
# Near misses: the right shape with anything in one place of it.
CHOICE = JSON | st.one_of(
    JSON.map(lambda value: {"text": "", "token_ids": value, "prompt_logprobs": value}),
    JSON.map(lambda value: {"text": "", "prompt_logprobs": [None, value]}),
    JSON.map(lambda value: {"text": "", "prompt_logprobs": [None, {"5": {"logprob": value}}]}),
    JSON.map(lambda value: {"message": value}),
)
NEAR = st.one_of(
    JSON,
    JSON.map(lambda value: {"choices": value}),
    CHOICE.map(lambda choice: {"choices": [choice]}),
    JSON.map(lambda value: {"data": [{"id": "toy", "max_model_len": value}]}),
)


def found(read: Callable[..., Any], *arguments: Any) -> Any:
    """Return what is read, or an exclamation mark and the cause of why nothing is."""
    try:
        return read(*arguments)
    except PolicyError as error:
        return f"!{error.cause}"


@given(st.binary(max_size=40) | NEAR.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_read_or_refused(body):
    if (read := found(read_text, body)) != "!malformed":
        text, tokens = read
        assert isinstance(text, str)
        assert tokens is None or all(type(token) is int and token >= 0 for token in tokens)
    if (read := found(read_log_probs, body, [4, 5], 1)) not in ("!malformed", "!no_log_probs", "!not_a_number"):
        assert read[0] == -math.inf or math.isfinite(read[0])
    assert isinstance(found(read_chat, body), str)
    length = found(read_context, body, "toy")
    assert length in (None, "!malformed", "!no_such_model") or length > 0


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        *((number, "!not_a_number") for number in (b"NaN", b"Infinity", b"0.5", b"1" + b"0" * 400)),
        *((number, "!malformed") for number in (b"true", b'"-1"', b"null")),
        (b"-9999.0", [-math.inf]),
    ],
)
def test_a_log_prob_is_a_number_that_a_probability_has_of_the_token_that_was_sent(number, expected):
    body = b'{"choices": [{"text": "", "prompt_logprobs": [null, {"5": {"logprob": %s}}]}]}' % number
    assert [found(read_log_probs, body, [4, token], 1) for token in (5, 6)] == [expected, "!malformed"]


def test_a_text_without_token_ids_is_believed_and_what_is_no_text_is_not():
    assert read_text(b'{"choices": [{"text": "LYZ"}]}') == ("LYZ", None)
    for body in (b'{"choices": [{"text": "\xff\xfe"}]}', b"[" * 100_000, b""):
        assert found(read_text, body) == "!malformed"
