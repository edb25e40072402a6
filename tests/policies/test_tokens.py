from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.policies.tokens import branches_of, log_prob_at

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
    """Elsewhere such a model is certain, so nothing is lost there."""
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
