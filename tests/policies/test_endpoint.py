"""The policy behind a real HTTP server that speaks as vLLM does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cellduality_plugin.chat import render
from cellduality_plugin.policies.base import PolicyError
from cellduality_plugin.policies.endpoint import EndpointPolicy
from cellduality_plugin.policies.settings import DualSettings, EndpointSettings

PROMPT = "CD74 CD79A"


def ask(server: Any, call: str, *arguments: Any, dual: DualSettings | None = None, **settings: Any) -> Any:
    """Return what a new policy answers, or the cause of its failure."""
    drawn = {name: settings.pop(name) for name in ("seed", "temperature", "given") if name in settings}
    chosen = EndpointSettings(urls=(server.url,), model="toy", **{"retries": 0, **settings})

    async def one() -> Any:
        policy = EndpointPolicy(server.tokenizer, chosen, dual or DualSettings())
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
    ask(policy_server, "generate", PROMPT, dual=DualSettings(temperature=0.7, max_new_tokens=5))
    greedy, drawn = policy_server.asked
    assert greedy["prompt"] == render(policy_server.tokenizer, PROMPT)
    assert (greedy["temperature"], greedy["max_tokens"]) == (0.0, 256 - len(greedy["prompt"]))
    assert (greedy["top_p"], greedy["top_k"], greedy["min_p"], greedy["repetition_penalty"]) == (1.0, 0, 0.0, 1.0)
    assert (drawn["temperature"], drawn["max_tokens"]) == (0.7, 5)


@pytest.mark.parametrize("kind", ["vllm", "chat"])
def test_a_draw_may_have_a_seed_and_a_temperature_of_its_own(policy_server, kind):
    ask(policy_server, "generate", PROMPT, kind=kind, seed=3, temperature=0.5)
    ask(policy_server, "generate", PROMPT, kind=kind)
    assert [(body.get("seed"), body["temperature"]) for body in policy_server.asked] == [(3, 0.5), (None, 0.0)]


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


@pytest.mark.parametrize("settings", [{"dual": DualSettings(max_new_tokens=5)}, {"max_length": 100}])
def test_a_context_that_the_endpoint_does_not_tell_may_be_set(policy_server, settings):
    policy_server.context = None
    assert ask(policy_server, "generate", PROMPT, **settings) == ""


def test_whether_it_answers_can_be_asked(policy_server, said):
    assert ask(policy_server, "check") is None
    policy_server.answer = lambda path, body: said(body=b'{"data": [{"id": "another"}]}')
    assert ask(policy_server, "check") == "no_such_model"
    policy_server.stop()
    assert ask(policy_server, "check") == "refused"


def test_whether_it_answers_is_known_though_every_turn_is_taken(policy_server):
    policy_server.after = 1.0
    chosen = EndpointSettings(urls=(policy_server.url,), model="toy", concurrency=1)

    async def beside_a_slow_one() -> bool:
        policy = EndpointPolicy(policy_server.tokenizer, chosen, DualSettings())
        slow = asyncio.ensure_future(policy.generate(PROMPT))
        while not policy_server.asked:
            await asyncio.sleep(0.01)
        await policy.check()
        first = not slow.done()
        await slow
        await policy.close()
        return first

    assert asyncio.run(beside_a_slow_one())


@pytest.mark.parametrize(
    ("call", "body", "expected"),
    [
        ("log_probs", b"\xff", "malformed"),
        ("log_probs", b'{"choices": []}', "malformed"),
        ("log_probs", b'{"choices": [{"text": ""}]}', "no_log_probs"),
        ("generate", b'{"choices": [{"text": "LYZ"}]}', "LYZ"),  # an endpoint without token ids is taken at its word
    ],
)
def test_what_a_body_says(policy_server, said, call, body, expected):
    policy_server.script = [said(body=body)]
    assert ask(policy_server, call, PROMPT, *(["LYZ"] if call == "log_probs" else [])) == expected


def test_a_chat_endpoint_is_sent_a_message(policy_server):
    policy_server.text = "<answer>LYZ</answer>"
    assert (
        ask(policy_server, "generate", PROMPT, dual=DualSettings(max_new_tokens=9), kind="chat") == policy_server.text
    )
    messages = [{"role": "user", "content": PROMPT}]
    assert policy_server.asked == [{"model": "toy", "messages": messages, "temperature": 0.0, "max_tokens": 9}]


def test_the_context_is_asked_for_once_and_again_only_after_a_failure(policy_server, said):
    answer, models = policy_server.answer, []

    def counted(path: str, body: dict[str, Any]) -> Any:
        models.extend([path] if path == "/v1/models" else [])
        return said(status=404) if path == "/v1/models" and len(models) == 1 else answer(path, body)

    policy_server.answer = counted
    chosen = EndpointSettings(urls=(policy_server.url,), model="toy", retries=0)

    async def twice_three() -> list[str]:
        policy = EndpointPolicy(policy_server.tokenizer, chosen, DualSettings())
        found: list[Any] = []
        for _ in range(2):
            found += await asyncio.gather(*(policy.generate(PROMPT) for _ in range(3)), return_exceptions=True)
        await policy.close()
        return list(map(str, found))

    assert asyncio.run(twice_three()) == ["http_404"] * 3 + [""] * 3
    assert len(models) == 2
