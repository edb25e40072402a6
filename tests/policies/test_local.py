"""A checkpoint in this process says what the same weights say when they are asked one by one."""

from __future__ import annotations

import asyncio
import math

import pytest
import torch

from cellduality_plugin.chat import render
from cellduality_plugin.policies.base import PolicyError
from cellduality_plugin.policies.local import LocalModel, LocalPolicy

PROMPTS = ("Cell: LYZ CD74", "Cell: MS4A1 CD79A CD74 FTL", "Cell: NKG7")


@pytest.fixture(scope="module")
def model(small_world) -> LocalModel:
    return LocalModel.load(small_world.model, max_model_len=256, max_new_tokens=6, batch=2)


def policy(model: LocalModel, temperature: float = 0.0, seed: int = 1) -> LocalPolicy:
    return LocalPolicy(model, temperature=temperature, seed=seed)


def together(*asked):
    async def all_of_them():
        return await asyncio.gather(*asked)

    return asyncio.run(all_of_them())


def tokens_of(model: LocalModel, text: str) -> list[int]:
    return model.tokenizer(text, add_special_tokens=False)["input_ids"]


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
