"""Which cells train, which validate, which test, and which of the training cells show their label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np

from cellduality_plugin.errors import CellDualityError

Split: TypeAlias = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def apportion(total: int, weights: Sequence[float], at_least: int = 0) -> list[int]:
    """Return whole shares of ``total`` in proportion to ``weights``, each no smaller than ``at_least``.

    Largest remainder first; equal remainders go to the earlier weight.

    Examples
    --------
    >>> apportion(10, [6, 2, 2]), apportion(3, [0.6, 0.2, 0.2], at_least=1), apportion(1, [1, 1])
    ([6, 2, 2], [1, 1, 1], [1, 0])
    """
    if total < at_least * len(weights):
        raise ValueError(f"{total} cannot be shared among {len(weights)} with at least {at_least} each")
    quotas = np.asarray(weights, dtype=float) * (total / sum(weights))
    # Rounding keeps 0.6 * 5 from becoming 2.9999... and losing a whole share to noise.
    shares = np.maximum(at_least, np.floor(np.round(quotas, 9))).astype(int)
    while shares.sum() < total:
        shares[np.argmax(np.round(quotas - shares, 9))] += 1
    while shares.sum() > total:
        excess = np.where(shares > at_least, np.round(shares - quotas, 9), -np.inf)
        shares[np.argmax(excess)] -= 1
    return [int(share) for share in shares]


def small_classes(labels: Iterable[str], at_least: int = len(SPLITS)) -> dict[str, int]:
    """Return the classes with fewer than ``at_least`` cells, and how many they have.

    Examples
    --------
    >>> small_classes(["B", "B", "B", "T"])
    {'T': 1}
    """
    return {label: count for label, count in sorted(Counter(labels).items()) if count < at_least}


def split_cells(
    labels: Mapping[str, str], *, fractions: tuple[float, float, float], rng: np.random.Generator
) -> dict[str, Split]:
    """Return the split of every cell; each class is shared out on its own.

    The result depends on the set of cells and on ``rng``, not on the order of ``labels``. Every class is in
    all three splits, even one of three cells; rarer classes are refused.

    Parameters
    ----------
    labels
        Class by cell id.
    fractions
        Of train, validation and test; they add up to one.
    rng
        The only source of randomness.

    Raises
    ------
    CellDualityError
        If there is one class only, or a class has fewer than three cells.

    Examples
    --------
    >>> import numpy as np
    >>> labels = {f"{kind}{number}": kind for kind in "BT" for number in range(5)}
    >>> chosen = split_cells(labels, fractions=(0.6, 0.2, 0.2), rng=np.random.default_rng(0))
    >>> sorted(chosen.values())
    ['test', 'test', 'train', 'train', 'train', 'train', 'train', 'train', 'validation', 'validation']
    """
    classes = _by_class(labels)
    if len(classes) < 2:
        raise CellDualityError(
            f"{len(labels)} cells in {len(classes)} class",
            where="cell_type",
            mend="choose a --label-column of two or more labels",
        )
    rare = small_classes(labels.values())
    if rare:
        shown = ", ".join(f"{label!r} {count}" for label, count in list(rare.items())[:5])
        raise CellDualityError(
            f"{len(rare)} of {len(classes)} classes have fewer than {len(SPLITS)} cells ({shown})",
            where="cell_type",
            mend="merge them, choose another --label-column, or pass --small-classes drop",
        )
    chosen: dict[str, Split] = {}
    for ids in classes.values():
        shares = apportion(len(ids), fractions, at_least=1)
        order = [ids[place] for place in rng.permutation(len(ids))]
        names = [split for split, share in zip(SPLITS, shares, strict=True) for _ in range(share)]
        chosen.update(zip(order, names, strict=True))
    return chosen


def choose_labelled(labels: Mapping[str, str], count: int, rng: np.random.Generator) -> frozenset[str]:
    """Return the ids of the training cells whose label may be shown: in proportion, one a class at least.

    Parameters
    ----------
    labels
        Class by id, of the training cells alone.
    count
        How many cells.
    rng
        The only source of randomness.

    Raises
    ------
    CellDualityError
        If there are fewer training cells than ``count``, or more classes.
    """
    classes = _by_class(labels)
    if not len(classes) <= count <= len(labels):
        raise CellDualityError(
            f"{count} labelled cells of {len(labels)} training cells in {len(classes)} classes",
            where="n_labelled",
            mend=f"choose a number from {len(classes)} to {len(labels)}",
        )
    shares = apportion(count, [len(ids) for ids in classes.values()], at_least=1)
    return frozenset(
        ids[place]
        for ids, share in zip(classes.values(), shares, strict=True)
        for place in rng.permutation(len(ids))[:share]
    )


def choose_some(classes: Mapping[str, str], count: int, rng: np.random.Generator) -> frozenset[str]:
    """Return ``count`` cells, in proportion by class; of each at least the three that a split needs, if it has them.

    Parameters
    ----------
    classes
        Class by cell id.
    count
        How many cells; all of them if there are no more.
    rng
        The only source of randomness.

    Raises
    ------
    CellDualityError
        If ``count`` is too small for that.

    Examples
    --------
    >>> import numpy as np
    >>> classes = {f"{kind}{number}": kind for kind in "BT" for number in range(50)}
    >>> sorted(Counter(name[0] for name in choose_some(classes, 10, np.random.default_rng(0))).items())
    [('B', 5), ('T', 5)]
    """
    if count >= len(classes):
        return frozenset(classes)
    by_class = _by_class(classes)
    sizes = [len(ids) for ids in by_class.values()]
    least = min(len(SPLITS), *sizes)
    if count < least * len(sizes):
        raise CellDualityError(
            f"{count} cells of {len(sizes)} classes", where="max_cells", mend=f"choose {least * len(sizes)} or more"
        )
    return frozenset(
        ids[place]
        for ids, share in zip(by_class.values(), apportion(count, sizes, at_least=least), strict=True)
        for place in rng.permutation(len(ids))[:share]
    )


def _by_class(labels: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the ids of each class, both in alphabetical order."""
    classes: dict[str, list[str]] = {}
    for name in sorted(labels):
        classes.setdefault(labels[name], []).append(name)
    return dict(sorted(classes.items()))
