"""How many rows of each task and direction, and which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from cellduality_plugin.errors import CellDualityError
from data_prep.traces.filtering.filters import by_group


def apportioned(counts: Mapping[str, int], shares: Mapping[str, float]) -> dict[str, int]:
    """Return how many rows of each group to keep so that they stand in the proportion of ``shares``.

    Parameters
    ----------
    counts
        Rows there are, by ``"task/direction"``.
    shares
        Relative weights by ``"task/direction"``, ``"task"`` or ``"direction"``; a group not named weighs 1. Empty: all
        rows are kept.

    Returns
    -------
    dict
        The largest numbers in that proportion, rounded; the group that is scarcest for its weight is kept whole.

    Raises
    ------
    CellDualityError
        If every group weighs 0.

    Examples
    --------
    >>> apportioned({"a/primal": 100, "a/dual": 80}, {"a/dual": 0.5})
    {'a/primal': 100, 'a/dual': 50}
    """
    if not shares:
        return dict(counts)
    weights = {group: by_group(shares, *_halves(group), 1.0) for group in counts}
    scales = [counts[group] / weight for group, weight in weights.items() if weight > 0 and counts[group]]
    if not scales:
        raise CellDualityError("every group weighs 0", where="--share", mend="give one a weight above 0")
    return {group: min(counts[group], round(min(scales) * weight)) for group, weight in weights.items()}


def chosen(groups: Sequence[str], shares: Mapping[str, float], rng: np.random.Generator) -> list[int]:
    """Return the places of the rows to keep, shuffled.

    Parameters
    ----------
    groups
        The ``"task/direction"`` of each row.
    shares
        See :func:`apportioned`.
    rng
        The only source of randomness.
    """
    left = Counter(apportioned(Counter(groups), shares))
    places = []
    for place in rng.permutation(len(groups)).tolist():
        if left[groups[place]] > 0:
            left[groups[place]] -= 1
            places.append(place)
    return places


def in_order(groups: Iterable[str]) -> list[str]:
    """Return ``"task/direction"`` groups by task, the primal first.

    Examples
    --------
    >>> in_order(["b/dual", "a/dual", "a/primal"])
    ['a/primal', 'a/dual', 'b/dual']
    """
    return sorted(groups, key=lambda group: (group.rpartition("/")[0], group.endswith("/dual")))


def _halves(group: str) -> tuple[str, str]:
    task, _, direction = group.rpartition("/")
    return task, direction
