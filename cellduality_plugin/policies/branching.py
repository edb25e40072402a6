"""Token positions at which responses branch: they decide how likely one of them is rather than another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

Prefix: TypeAlias = tuple[int, ...]


def branches_of(responses: Sequence[Sequence[int]]) -> dict[Prefix, list[int]]:
    """Return {prefix that some responses share: the different tokens that follow}, wherever these are two or more.

    ``responses`` are token ids; if one of them is the beginning of another, a ValueError is raised.

    Examples
    --------
    >>> branches_of([[5, 1, 9], [5, 2, 7, 9], [5, 2, 8, 9]])
    {(5,): [1, 2], (5, 2): [7, 8]}
    """
    following: dict[Prefix, set[int]] = {}
    distinct = set(map(tuple, responses))
    for response in distinct:
        for place, token in enumerate(response):
            following.setdefault(response[:place], set()).add(token)
    if any(response in following for response in distinct):
        raise ValueError("a response is the beginning of another: how likely each is cannot be read")
    in_order = sorted(following, key=lambda prefix: (len(prefix), prefix))
    return {prefix: sorted(following[prefix]) for prefix in in_order if len(following[prefix]) > 1}


def log_prob_at(branches: Mapping[Prefix, Mapping[int, float]], response: Sequence[int]) -> float:
    """Return the sum of the log-probabilities of the tokens of ``response`` at which others branch off.

    ``branches`` has at each shared prefix the natural log-probability of each token that follows.

    Examples
    --------
    >>> found = {(5,): {1: -2.0, 2: -0.5}, (5, 2): {7: -0.25, 8: -3.0}}
    >>> log_prob_at(found, [5, 1, 9]), log_prob_at(found, [5, 2, 7, 9])
    (-2.0, -0.75)
    """
    whole = tuple(response)
    return math.fsum(branches[whole[:place]][token] for place, token in enumerate(whole) if whole[:place] in branches)
