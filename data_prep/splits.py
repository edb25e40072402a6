"""Which cells train, validate, test, show their label and are paired, by a seed or as a publication has it.

What is drawn depends on the set of cells and the seed, not on the order of the cells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, TypeVar

import numpy as np

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.perturbations import CONTROL

Item = TypeVar("Item")
Split: TypeAlias = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
OOD = "ood"  # the split of the cells that are held out of all others
FRACTIONS = (0.6, 0.2, 0.2)  # of train, validation and test cells of each class, where no publication says otherwise


@dataclass(frozen=True)
class PublishedSplit:
    """The rule by which a set is split, the cells it holds out, and what of it cannot be had again."""

    rule: Literal["fractions", "instructcell", "whole"] = "fractions"  # of the cells that are not held out by a value
    held_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # values by column
    first_word: bool = False  # whether the first word of a value says that it is held out: Trametinib (GSK1120212)
    unknown: str = ""  # what of the published split is not reproduced, and why

    def text(self, fractions: Sequence[float] = FRACTIONS) -> str:
        """Return the split in words; ``fractions`` of the classes count where no rule says otherwise."""
        by_class = f"{' / '.join(f'{100 * share:g}' for share in fractions)} by class, seeded"
        rule = {
            "fractions": by_class,
            "instructcell": "80 / 10 / 10 at random, by InstructCell's rule (seed 42)",
            "whole": "the whole set is held out: no cell trains",
        }[self.rule]
        held = "; ".join(f"{column} {', '.join(values)}" for column, values in self.held_out.items())
        text = f"held out: {held}; the others {rule}" if held else rule
        return f"{text}. Not as published: {self.unknown}" if self.unknown else text

    def held_values(self, column: str, values: Collection[str]) -> dict[str, str]:
        """Return {value: the one of ``held_out`` that it is} of those ``values`` of a column that are held out."""
        names = {value: value.partition(" ")[0] if self.first_word else value for value in values}
        return {value: name for value, name in names.items() if name in self.held_out[column]}

    def assign(self, cells: Sequence[str]) -> dict[str, str]:
        """Return the split of every cell of the file, in its order, by the rule; nothing for fractions.

        InstructCell (github.com/zjunlp/InstructCell, preprocess.py) permutes the cells by RandomState(42) and rounds
        the shares of train and validation down. One state goes through all its sets, in an order of folders that is not
        known; here every set has a state of its own, as the first of them had.
        """
        if self.rule == "whole":
            return dict.fromkeys(cells, OOD)
        if self.rule == "fractions":
            return {}
        total = len(cells)
        train, validation = int(total * 0.8), int(total * (1 - 0.8)) // 2
        names = np.repeat(SPLITS, [train, validation, total - train - validation]).tolist()
        order = np.random.RandomState(42).permutation(total)
        return {cells[place]: name for place, name in zip(order, names, strict=True)}


INSTRUCTCELL = PublishedSplit(
    "instructcell",
    unknown="the sizes are InstructCell's, but which cells are where depends on the order in which it read its sets,"
    " which was not recorded.",
)

UNSEEN = PublishedSplit(
    "whole",
    unknown="InstructCell trains on 80 / 10 / 10 of it; the paper trains on none of it, and says of GSE110894 alone"
    " that all of it is tested on.",
)


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
    if (lacking := total - int(shares.sum())) > 0:  # fewer than there are weights with a remainder
        shares[np.argsort(-np.round(quotas - shares, 9), kind="stable")[:lacking]] += 1
    while (over := int(shares.sum()) - total) > 0:
        excess = np.where(shares > at_least, np.round(shares - quotas, 9), -np.inf)
        first = np.argsort(-excess, kind="stable")[: min(over, int((shares > at_least).sum()))]
        shares[first] -= 1
    return [int(share) for share in shares]


def small_classes(labels: Iterable[str]) -> dict[str, int]:
    """Return the classes with fewer cells than there are splits, and how many they have."""
    return {label: count for label, count in sorted(Counter(labels).items()) if count < len(SPLITS)}


def split_cells(
    labels: Mapping[str, str], *, fractions: tuple[float, float, float], rng: np.random.Generator
) -> dict[str, Split]:
    """Return the split of the cells {id: class}; each class, of three or more, is shared out by ``fractions``."""
    classes = _by_class(labels)
    if len(classes) < 2:
        what, hint = f"{len(labels)} cells in {len(classes)} class", "choose a --label-column of two or more labels"
        raise CellDualityError(what, code="one-class", where="cell_type", hint=hint)
    if rare := small_classes(labels.values()):
        shown = ", ".join(f"{label!r} {count}" for label, count in list(rare.items())[:5])
        what = f"{len(rare)} of {len(classes)} classes have fewer than {len(SPLITS)} cells ({shown})"
        hint = "merge them, choose another --label-column, or pass --small-classes drop"
        raise CellDualityError(what, code="small-classes", where="cell_type", hint=hint)
    chosen: dict[str, Split] = {}
    for ids in classes.values():
        shares = apportion(len(ids), fractions, at_least=1)
        names = [split for split, share in zip(SPLITS, shares, strict=True) for _ in range(share)]
        chosen.update(zip(shuffled(ids, rng), names, strict=True))
    return chosen


def choose_labelled(labels: Mapping[str, str], count: int, rng: np.random.Generator, *, few: int = 0) -> frozenset[str]:
    """Return ``count`` training cells of {id: class} whose label may be shown: in proportion, one a class at least.

    Of more than ``few`` classes, if it is not 0, there need not be one of each.
    """
    classes = _by_class(labels)
    many = 0 < few < len(classes)
    if not (1 if many else len(classes)) <= count <= len(labels):
        what = f"{count} labelled cells of {len(labels)} training cells in {len(classes)} classes"
        hint = f"choose a number from {1 if many else len(classes)} to {len(labels)}"
        raise CellDualityError(what, code="wrong-count", where="n_labelled", hint=hint)
    if many and count < len(classes):
        return frozenset(shuffled(sorted(labels), rng)[:count])
    return _sample(classes, count, 1, rng)


def choose_some(
    labels: Mapping[str, str], count: int, rng: np.random.Generator, *, few: int = 0, kept: Collection[str] = ()
) -> frozenset[str]:
    """Return ``count`` cells of {id: class}, in proportion; of a class three, for a split, if it has them.

    Of more than ``few`` classes, if it is not 0, there are as many as ``count`` has room for: those of ``kept``, and
    others that have three cells.
    """
    if count >= len(labels):
        return frozenset(labels)
    classes, parts = _by_class(labels), len(SPLITS)
    if 0 < few < len(classes) and count < parts * len(classes):
        others = [name for name, ids in classes.items() if len(ids) >= parts and name not in kept]
        room = max(0, count // parts - len(kept))
        chosen = {*kept, *shuffled(others, rng)[:room]}
        classes = {name: ids for name, ids in classes.items() if name in chosen}
        count = min(count, sum(map(len, classes.values())))
    least = min(parts, *map(len, classes.values()))
    if count < least * len(classes):
        what, hint = f"{count} cells of {len(classes)} classes", f"choose {least * len(classes)} or more"
        raise CellDualityError(what, code="wrong-count", where="max_cells", hint=hint)
    return _sample(classes, count, least, rng)


def pair_with_controls(
    perturbations: Mapping[str, str], groups: Mapping[str, str], rng: np.random.Generator
) -> dict[str, str]:
    """Return {cell: the untreated cell of its group it is paired with}; cells that find none are left out.

    ``perturbations`` and ``groups`` (what both have to share) are by cell. In a group every untreated cell is taken
    before any is taken twice; untreated ones are paired in a ring, so none with itself. None at all is an error.
    """
    if CONTROL not in perturbations.values():
        what = f"no cell is untreated; the perturbations are {', '.join(sorted(set(perturbations.values()))[:5])}"
        hint = f"name untreated cells {CONTROL!r} in that column, or say what they are called with --control"
        hint += " (a text like none counts as missing unless it is named so)"
        raise CellDualityError(what, code="no-control", where="perturbation", hint=hint)
    pairs: dict[str, str] = {}
    for names in _by_class({name: groups[name] for name in perturbations}).values():
        controls = [name for name in names if perturbations[name] == CONTROL]
        treated = [name for name in names if perturbations[name] != CONTROL]
        ring = shuffled(controls, rng)
        if len(ring) > 1:
            pairs.update(zip(ring, [*ring[1:], ring[0]], strict=True))
        taken: list[str] = []
        while controls and len(taken) < len(treated):
            taken += shuffled(controls, rng)
        pairs.update(zip(treated, taken, strict=False))
    return pairs


def _by_class(labels: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the ids of each class, both in alphabetical order."""
    classes: dict[str, list[str]] = {label: [] for label in sorted(set(labels.values()))}
    for name in sorted(labels):
        classes[labels[name]].append(name)
    return classes


def _sample(classes: Mapping[str, list[str]], count: int, at_least: int, rng: np.random.Generator) -> frozenset[str]:
    shares = apportion(count, [len(ids) for ids in classes.values()], at_least)
    return frozenset(name for ids, n in zip(classes.values(), shares, strict=True) for name in shuffled(ids, rng)[:n])


def shuffled(items: Sequence[Item], rng: np.random.Generator) -> list[Item]:
    """Return the items in random order."""
    return [items[place] for place in rng.permutation(len(items))]
