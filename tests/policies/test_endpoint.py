"""The policy behind a real HTTP server that speaks as vLLM does."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from cellduality_plugin.framing import render
from cellduality_plugin.policies.base import PolicyError
from cellduality_plugin.policies.endpoint import EndpointPolicy
from cellduality_plugin.policies.settings import DualSettings, EndpointSettings

PROMPT = "CD74 CD79A"


def ask(server: Any, call: str, *arguments: str, dual: DualSettings | None = None, **settings: Any) -> Any:
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
    [body] = policy_server.asked
    assert body["prompt"] == render(policy_server.tokenizer, PROMPT)
    assert (body["temperature"], body["max_tokens"]) == (0.0, 256 - len(body["prompt"]))
    assert (body["top_p"], body["top_k"], body["min_p"], body["repetition_penalty"]) == (1.0, 0, 0.0, 1.0)


def test_temperature_and_length_are_those_of_the_configuration(policy_server):
    ask(policy_server, "generate", PROMPT, dual=DualSettings(temperature=0.7, max_new_tokens=5))
    assert (policy_server.asked[0]["temperature"], policy_server.asked[0]["max_tokens"]) == (0.7, 5)


def test_log_probs_are_those_of_the_response_alone(policy_server):
    policy_server.log_prob = lambda place: -float(place)
    start = len(render(policy_server.tokenizer, PROMPT))
    found = ask(policy_server, "log_probs", PROMPT, "LYZ CST3 FTL")
    assert found == [-float(start), -float(start + 1), -float(start + 2)]


def test_a_draw_may_have_a_seed_and_a_temperature_of_its_own(policy_server):
    for kind in ("vllm", "chat"):
        ask(policy_server, "generate", PROMPT, kind=kind, seed=3, temperature=0.5)
        ask(policy_server, "generate", PROMPT, kind=kind)
    told = [(body.get("seed"), body["temperature"]) for body in policy_server.asked]
    assert told == [(3, 0.5), (None, 0.0)] * 2


def test_log_probs_of_a_given_beginning_are_left_out(policy_server):
    policy_server.log_prob = lambda place: -float(place)
    whole = ask(policy_server, "log_probs", PROMPT, "LYZ CST3 FTL")
    assert ask(policy_server, "log_probs", PROMPT, " CST3 FTL", given="LYZ") == whole[1:]


def test_of_a_choice_they_are_those_of_the_tokens_at_which_responses_part(policy_server):
    policy_server.log_prob = lambda place: -float(place)
    start = len(render(policy_server.tokenizer, PROMPT))
    found = ask(policy_server, "choice_log_probs", PROMPT, ["LYZ CST3 FTL", "LYZ FTL CST3", "LYZ FTL NKG7"])
    assert found == [-float(start + 1), -float(2 * start + 3), -float(2 * start + 3)]
    assert ask(policy_server, "choice_log_probs", PROMPT, ["LYZ", "CST3"], kind="chat") == "no_log_probs"


def test_what_does_not_fit_is_not_sent(policy_server):
    assert ask(policy_server, "generate", PROMPT * 300) == "prompt_too_long"
    assert ask(policy_server, "log_probs", PROMPT, "LYZ " * 300) == "prompt_too_long"
    assert ask(policy_server, "generate", PROMPT, max_length=5) == "prompt_too_long"
    assert policy_server.asked == []


def test_a_context_that_the_endpoint_does_not_tell_has_to_be_told(policy_server):
    policy_server.context = None
    assert ask(policy_server, "generate", PROMPT) == "context_unknown"
    assert ask(policy_server, "generate", PROMPT, dual=DualSettings(max_new_tokens=5)) == ""
    assert ask(policy_server, "generate", PROMPT, max_length=100) == ""


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
    ("body", "cause"),
    [
        (b"\xff", "malformed"),
        (b'{"choices": []}', "malformed"),
        (b'{"choices": [{"text": ""}]}', "no_log_probs"),
    ],
)
def test_an_answer_that_is_none_has_a_cause(policy_server, said, body, cause):
    policy_server.script = [said(body=body)]
    assert ask(policy_server, "log_probs", PROMPT, "LYZ") == cause


def test_an_endpoint_without_token_ids_is_taken_at_its_word(policy_server, said):
    policy_server.script = [said(body=json.dumps({"choices": [{"text": "<answer>LYZ</answer>"}]}).encode())]
    assert ask(policy_server, "generate", PROMPT) == "<answer>LYZ</answer>"


def test_a_chat_endpoint_generates_and_knows_no_log_probs(policy_server):
    policy_server.text = "<answer>LYZ</answer>"
    dual = DualSettings(max_new_tokens=9)
    assert ask(policy_server, "generate", PROMPT, dual=dual, kind="chat") == "<answer>LYZ</answer>"
    [body] = policy_server.asked
    assert body == {
        "model": "toy",
        "messages": [{"role": "user", "content": PROMPT}],
        "temperature": 0.0,
        "max_tokens": 9,
    }
    assert ask(policy_server, "log_probs", PROMPT, "LYZ", kind="chat") == "no_log_probs"


def test_the_context_is_asked_for_once_and_again_only_after_a_failure(policy_server):
    answer, models = policy_server.answer, []

    def counted(path: str, body: dict[str, Any]) -> Any:
        if path == "/v1/models":
            models.append(path)
            if len(models) == 1:
                return type(answer("/v1/models", {}))(status=404)
        return answer(path, body)

    policy_server.answer = counted
    chosen = EndpointSettings(urls=(policy_server.url,), model="toy", retries=0)

    async def several() -> list[Any]:
        policy = EndpointPolicy(policy_server.tokenizer, chosen, DualSettings())
        first = await asyncio.gather(*(policy.generate(PROMPT) for _ in range(3)), return_exceptions=True)
        second = await asyncio.gather(*(policy.generate(PROMPT) for _ in range(3)))
        await policy.close()
        return [*(str(error) for error in first), *second]

    assert asyncio.run(several()) == ["http_404"] * 3 + [""] * 3
    assert len(models) == 2
