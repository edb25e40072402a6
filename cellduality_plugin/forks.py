"""Where responses part: all that is needed to tell how likely a policy is to take one of them rather than another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

Tokens: TypeAlias = tuple[int, ...]


def forks_of(responses: Sequence[Sequence[int]]) -> dict[Tokens, list[int]]:
    """Return {what some responses begin with: the different tokens they go on with}, wherever these are two or more.

    Parameters
    ----------
    responses
        Token ids; none of them is the beginning of another.

    Raises
    ------
    ValueError
        If one is.

    Examples
    --------
    >>> forks_of([[5, 1, 9], [5, 2, 7, 9], [5, 2, 8, 9]])
    {(5,): [1, 2], (5, 2): [7, 8]}
    """
    following: dict[Tokens, set[int]] = {}
    whole = set(map(tuple, responses))
    for response in whole:
        for place, token in enumerate(response):
            following.setdefault(response[:place], set()).add(token)
    if any(response in following for response in whole):
        raise ValueError("a response is the beginning of another: they cannot be told apart")
    return {
        begun: sorted(tokens)
        for begun, tokens in sorted(following.items(), key=lambda item: (len(item[0]), item[0]))
        if len(tokens) > 1
    }


def log_prob_at_forks(response: Sequence[int], found: Mapping[Tokens, Mapping[int, float]]) -> float:
    """Return the sum of the log-probabilities of the tokens of ``response`` at which others part from it.

    Parameters
    ----------
    response
        Token ids.
    found
        At every fork the natural log-probability of each token that follows.

    Examples
    --------
    >>> found = {(5,): {1: -2.0, 2: -0.5}, (5, 2): {7: -0.25, 8: -3.0}}
    >>> log_prob_at_forks([5, 1, 9], found), log_prob_at_forks([5, 2, 7, 9], found)
    (-2.0, -0.75)
    """
    whole = tuple(response)
    return math.fsum(found[whole[:place]][token] for place, token in enumerate(whole) if whole[:place] in found)
