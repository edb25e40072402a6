"""Where responses part, and how likely each of them is by the tokens there."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.policies.branching import branches_of, log_prob_at

END = 99
responses = st.lists(
    st.lists(st.integers(0, 3), max_size=4).map(lambda tokens: [*tokens, END]), min_size=1, max_size=8, unique_by=tuple
)


def next_token(begun: tuple[int, ...], responses: list[list[int]]) -> dict[int, float]:
    """Return {token: probability} of a model that has only ever seen ``responses``, the n-th of them n times."""
    weights: dict[int, float] = {}
    for weight, response in enumerate(responses, start=1):
        if tuple(response[: len(begun)]) == begun:
            weights[response[len(begun)]] = weights.get(response[len(begun)], 0.0) + weight
    total = sum(weights.values())
    return {token: weight / total for token, weight in weights.items()}


@given(responses)
def test_what_is_told_at_the_forks_is_how_likely_each_response_is(responses):
    """Between forks such a model is certain, so nothing is lost there."""
    found = {
        begun: {token: math.log(p) for token, p in next_token(begun, responses).items()}
        for begun in branches_of(responses)
    }
    total = sum(range(len(responses) + 1))
    for weight, response in enumerate(responses, start=1):
        assert math.exp(log_prob_at(found, response)) == pytest.approx(weight / total)


@given(responses)
def test_no_fork_is_asked_about_that_tells_nothing(responses):
    forks = branches_of(responses)
    assert all(len(tokens) > 1 for tokens in forks.values())
    assert len(forks) < len(responses), "labels that differ in their first token take one question"


def test_equal_responses_are_one():
    assert branches_of([[1, 2], [1, 2]]) == {}
    assert log_prob_at({}, [1, 2]) == 0.0


def test_the_beginning_of_another_cannot_be_told_apart():
    with pytest.raises(ValueError, match="the beginning of another"):
        branches_of([[1], [1, 2]])
