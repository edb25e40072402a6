"""A checkpoint in this process says what the same weights say when they are asked one by one."""

from __future__ import annotations

import asyncio
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.chat import render, response_ids
from cellduality_plugin.policies.base import PolicyError
from cellduality_plugin.policies.local import LocalModel, LocalPolicy
from cellduality_plugin.policies.tokens import branches_of, log_prob_at

PROMPTS = ("Cell: LYZ CD74", "Cell: MS4A1 CD79A CD74 FTL", "Cell: NKG7")


@pytest.fixture(scope="module")
def model(small_world) -> LocalModel:
    return LocalModel.load(small_world.model, max_model_len=256, max_new_tokens=6, batch=2)


def policy(model, temperature=0.0, seed=1):
    return LocalPolicy(model, temperature=temperature, seed=seed)


def together(*asked):
    async def all_of_them():
        return await asyncio.gather(*asked)

    return asyncio.run(all_of_them())


def tokens_of(model, text):
    return response_ids(model.tokenizer, text)


def alone(model: LocalModel, tokens: list[int]) -> torch.Tensor:
    """The log-probabilities of what follows each token, computed without padding, batch or cache."""
    with torch.inference_mode():
        return model._model(torch.tensor([tokens])).logits[0].log_softmax(-1)


def test_greedy_answers_are_the_likeliest_tokens_whoever_is_asked_beside(model):
    found = together(*(policy(model).generate(prompt) for prompt in PROMPTS))
    for prompt, text in zip(PROMPTS, found, strict=True):
        tokens = render(model.tokenizer, prompt)
        expected: list[int] = []
        while len(expected) < 6:
            token = int(alone(model, tokens + expected)[-1].argmax())
            if token == model.tokenizer.eos_token_id:
                break
            expected.append(token)
        assert text == model.tokenizer.decode(expected)
    with pytest.raises(PolicyError, match="prompt_too_long"):
        together(policy(model).generate("LYZ " * 400))


def test_a_draw_hangs_on_seed_prompt_and_number_alone(model):
    prompts = [PROMPTS[0]] * 8
    first = together(*map(policy(model, 1.0).generate, prompts))
    assert first == together(*map(policy(model, 1.0).generate, prompts))
    beside = policy(model, 1.0)
    assert first == together(*map(beside.generate, prompts), *map(beside.generate, PROMPTS[1:]))[:8]
    assert len({*first}) > 1
    assert first != together(*map(policy(model, 1.0, seed=2).generate, prompts))


def test_log_probs_are_those_of_each_token_of_the_response(model):
    texts = ("LYZ CD74", "NKG7 GNLY IL7R")
    found = together(*(policy(model).log_probs(PROMPTS[0], text) for text in texts))
    for text, logs in zip(texts, found, strict=True):
        prompt, target = render(model.tokenizer, PROMPTS[0]), tokens_of(model, text)
        expected = alone(model, prompt + target)[len(prompt) - 1 :]
        assert logs == pytest.approx([float(expected[at, token]) for at, token in enumerate(target)], abs=1e-4)
    [rest] = together(policy(model).log_probs(PROMPTS[0], " CD74", given="LYZ"))
    assert rest == pytest.approx(found[0][-len(rest) :], abs=1e-4)


def test_choices_differ_by_the_tokens_at_which_they_branch(model):
    responses = ("<answer> LYZ </answer>", "<answer> CD74 LYZ </answer>", "<answer> CD74 FTL </answer>")
    [found] = together(policy(model).choice_log_probs(PROMPTS[1], responses))
    whole = together(*(policy(model).log_probs(PROMPTS[1], response) for response in responses))
    # The third and the second share all tokens but one: what else they have in common cancels.
    shared = len(tokens_of(model, "<answer> CD74"))
    assert found[2] - found[1] == pytest.approx(whole[2][shared] - whole[1][shared], abs=1e-4)
    first = len(tokens_of(model, "<answer>"))
    assert found[0] == pytest.approx(whole[0][first], abs=1e-4)
    assert all(math.exp(each) <= 1 for each in found)


END = 99
responses = st.lists(
    st.lists(st.integers(0, 3), max_size=4).map(lambda tokens: [*tokens, END]), min_size=1, max_size=8, unique_by=tuple
)


def next_token(prefix: tuple[int, ...], responses: list[list[int]]) -> dict[int, float]:
    """Return {token: probability} of a model that has only ever seen ``responses``, the n-th of them n times."""
    weights: dict[int, float] = {}
    for weight, response in enumerate(responses, start=1):
        if tuple(response[: len(prefix)]) == prefix:
            weights[response[len(prefix)]] = weights.get(response[len(prefix)], 0.0) + weight
    return {token: weight / sum(weights.values()) for token, weight in weights.items()}


@given(responses)
def test_the_tokens_at_branches_tell_how_likely_each_response_is(responses):
    branches = branches_of(responses)
    found = {at: {token: math.log(p) for token, p in next_token(at, responses).items()} for at in branches}
    total = sum(range(len(responses) + 1))
    for weight, response in enumerate(responses, start=1):
        assert math.exp(log_prob_at(found, response)) == pytest.approx(weight / total)
    assert all(len(tokens) > 1 for tokens in branches.values())
    assert len(branches) < len(responses), "labels that differ in their first token take one question"


def test_equal_responses_are_one_and_the_beginning_of_another_cannot_be_told_apart():
    assert branches_of([[1, 2], [1, 2]]) == {}
    with pytest.raises(ValueError, match="the beginning of another"):
        branches_of([[1], [1, 2]])
