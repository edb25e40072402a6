"""What is hidden, scored after reasoning that the policy draws from its own dual."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.duals import Dual, Reasoning
from cellduality_plugin.parsing import read_trace, split_response
from cellduality_plugin.tasks import TASKS
from tests.play import Saying, row

ANNOTATION, GENERATION = TASKS["cell_type_annotation"], TASKS["conditional_cell_generation"]


def thinking(log_prob=lambda given: -1.0, say="<think>trace {seed}</think><answer>LYZ</answer>"):
    """Return a policy whose trace hangs on the seed alone; what follows that is as likely as ``log_prob`` says."""
    return Saying(
        lambda _, seed: say.format(seed=seed),
        log_prob=lambda _, response, given: [log_prob(given)] * len(response.split()),
    )


@pytest.fixture(scope="session")
def dual_of(cell, vocabulary):
    def make(policy, count, task=ANNOTATION, number=0, **settings):
        example = replace(row(task.name, cell, hidden=1.0), id=str(number))
        return Dual(task, example, vocabulary, policy, reasoning=Reasoning(count, **settings))

    return make


@given(count=st.integers(1, 5), seed=st.integers(0, 9))
def test_the_same_seed_gives_the_same_traces_whatever_the_row(count, seed, dual_of):
    policies = [thinking(), thinking(), thinking()]
    duals = [dual_of(policy, count, number=n, seed=seed) for n, policy in enumerate(policies)]
    first, again, _ = (asyncio.run(dual.traces("T")) for dual in duals)
    assert first == again
    assert len(set(first)) == count
    assert asyncio.run(duals[2].traces("T")) == first, "asked once"
    assert len(policies[2].drawn) == count
    assert not set(asyncio.run(dual_of(thinking(), count, seed=seed + 1).traces("T"))) & set(first)
    assert not set(asyncio.run(duals[0].traces("CD19+ B"))) & set(first)


def test_what_is_hidden_is_scored_whole_or_after_each_trace_which_is_not(dual_of, vocabulary):
    assert asyncio.run(dual_of(policy := thinking(), 0).log_likelihood("T", ("LYZ", "FTL"))) == (-2.0, 2)
    assert policy.drawn == []
    assert policy.scored == [(policy.scored[0][0], "", ANNOTATION.rebuilt_response(("LYZ", "FTL")))]
    policy = thinking(log_prob=lambda given: -float(len(given)))
    dual = dual_of(policy, 3, temperature=0.7)
    total, tokens = asyncio.run(dual.log_likelihood("T", ("LYZ", "FTL")))
    prompt = ANNOTATION.dual_prompt(dual.example.known, "T", vocabulary)
    assert [(asked, temperature) for asked, _, temperature in policy.drawn] == [(prompt, 0.7)] * 3
    assert {(asked, response) for asked, _, response in policy.scored} == {(prompt, "<answer>LYZ FTL</answer>")}
    traces = [f"<think>trace {seed}</think>" for _, seed, _ in policy.drawn]
    assert [given for _, given, _ in policy.scored] == traces
    assert (total, tokens) == (-2 * sum(map(len, traces)) / 3, 2)


@given(values=st.lists(st.floats(-900, 0), min_size=1, max_size=5))
def test_means_over_traces(values):
    assert math.isclose(Reasoning(5).over(values), np.mean(values), abs_tol=1e-9)
    wanted = np.logaddexp.reduce(values) - np.log(len(values))
    assert math.isclose(Reasoning(5, "probability").over(values), wanted, abs_tol=1e-9)


def test_a_choice_is_averaged_over_traces_after_what_its_choices_share_is_gone(dual_of, cell):
    """The trace that makes everything likely must not outvote the others."""
    at = {"one": {"T": -1.0, "CD19+ B": -3.0}, "two": {"T": -900.0, "CD19+ B": -899.0}}
    draws = iter(["<think>one</think><answer>", "<think>two</think><answer>"])

    def likely(prompt, response, given):
        found = split_response(response)
        return [at[found.trace][found.answer]]

    policy = Saying(lambda *_: next(draws), log_prob=likely)
    dual = dual_of(policy, 2, GENERATION, mean="probability")
    found = np.exp(asyncio.run(dual.choice_log_probs(cell.genes, ["T", "CD19+ B"])))
    one, two = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(1))
    np.testing.assert_allclose(found, [(one + two) / 2, 1 - (one + two) / 2])


@pytest.mark.parametrize("say", ["", "no tags", "<think>never ends", "</answer>", "x" * 100_000])
def test_a_draw_without_a_readable_trace_is_the_empty_one(say, dual_of):
    policy = thinking(say=say)
    asyncio.run(dual_of(policy, 2).log_likelihood("T", ("LYZ",)))
    assert {given for _, given, _ in policy.scored} == {"<think></think>"}
    assert len(policy.scored) == 1, "what is asked twice is asked once"


PIECES = st.lists(st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "<", ">", "<|im_end|>", "a "]))


@given(st.text() | PIECES.map("".join))
def test_a_trace_brings_no_tag_back(text):
    trace = read_trace(text)
    assert not [tag for tag in ("<think>", "</think>", "<answer>", "</answer>", "<|im_end|>") if tag in trace]
    response = split_response(ANNOTATION.rebuilt_response(("LYZ",), trace))
    assert (response.answer, response.failure) == ("LYZ", "")
