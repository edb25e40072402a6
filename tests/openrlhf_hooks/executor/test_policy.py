"""The engine as a policy: what it is asked for log-probabilities and draws."""

from __future__ import annotations

import asyncio

import pytest

from cellduality_plugin.chat import render
from cellduality_plugin.openrlhf_hooks.executor import EnginePolicy
from cellduality_plugin.policies.base import PolicyError
from cellduality_plugin.policies.settings import DualSettings

PROMPT = "Observed genes: CD74 CD79A"


@pytest.fixture
def engine(scene):
    return scene().engine


@pytest.fixture
def ask(engine, tokenizer):
    """Return a function that asks a policy whose context has so many tokens."""

    def asked(call, *arguments, length=256, settings=None, **more):
        policy = EnginePolicy(engine, tokenizer, length, settings or DualSettings())
        return asyncio.run(getattr(policy, call)(*arguments, **more))

    return asked


def test_log_probs_are_those_of_the_response_and_of_nothing_before_it(ask, engine, tokenizer):
    response = "<answer> HLA-DRA MS4A1 </answer>"
    start = len(render(tokenizer, PROMPT))
    assert ask("log_probs", PROMPT, response) == [-float(place) for place in range(start, start + 4)]
    [(tokens, params)] = engine.duals
    assert tokens[start:] == tokenizer(response, add_special_tokens=False)["input_ids"]
    assert (params.max_tokens, params.prompt_logprobs) == (1, 0)


def test_what_does_not_fit_is_refused_without_asking(ask, engine, tokenizer):
    response, start = "<answer> MS4A1 </answer>", len(render(tokenizer, PROMPT))
    assert len(ask("log_probs", PROMPT, response, length=start + 4)) == 3  # vLLM decodes one token at least
    for call, asked in (("log_probs", response), ("choice_log_probs", [response, "<answer> CD19+ B </answer>"])):
        with pytest.raises(PolicyError, match="prompt_too_long"):
            ask(call, PROMPT, asked, length=start + 3)
    assert len(engine.duals) == 1


def test_a_choice_is_asked_about_where_the_responses_part_and_nowhere_else(ask, engine, tokenizer):
    responses = ["<answer> T </answer>", "<answer> CD19+ B </answer>", "<answer> CD56+ NK </answer>"]
    found = ask("choice_log_probs", PROMPT, responses)
    parts = ("<answer>", "T", "CD19+ B", "CD56+ NK")
    opening, *labels = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in parts)
    [(tokens, params)] = engine.duals
    assert tokens == render(tokenizer, PROMPT) + opening
    assert sorted(params.logprob_token_ids) == sorted(label[0] for label in labels)
    assert (params.max_tokens, params.prompt_logprobs) == (1, None)
    assert found == [-float(label[0]) for label in labels]


def test_more_tokens_than_one_request_may_name_take_several(ask, engine):
    assert ask("_next", [1, 2, 3], range(300)) == {token: -float(token) for token in range(300)}
    assert [len(params.logprob_token_ids) for _, params in engine.duals] == [128, 128, 44]


def test_a_draw_may_have_a_seed_and_a_temperature_of_its_own(ask, engine):
    settings = DualSettings(max_new_tokens=7)
    ask("generate", "Type: T", seed=3, temperature=0.5, settings=settings)
    ask("generate", "Type: T", settings=settings)
    asked = [(params.seed, params.temperature, params.max_tokens) for _, params in engine.duals]
    assert asked == [(3, 0.5, 7), (None, 0.0, 7)]
