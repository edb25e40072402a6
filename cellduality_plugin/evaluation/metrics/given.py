"""What metrics are given: real cells, the space they are compared in, and the cells of one section beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.distances import Counts, Matrix, in_order, resampled
from cellduality_plugin.evaluation.embedding import Embedding
from cellduality_plugin.evaluation.predictions import Prediction
from cellduality_plugin.files import read_jsonl

NEIGHBOURS = (10, 3, 5, 25)  # the k of the k-NN classifiers, the headline first
ONE_KIND = "cell"  # what a cell is called that has neither a type nor a line, as in a screen of one of them
LEAST_CELLS_OF_A_TYPE = 10  # on either side: types with fewer are left out of distances within types
_REAL_DRAWS = 4

Names: TypeAlias = Sequence[str] | NDArray[Any]
Places: TypeAlias = NDArray[np.int64]
Sample: TypeAlias = tuple[Matrix, NDArray[Any]]  # points, and the name of each
Pair: TypeAlias = tuple[Matrix, Matrix, Counts]
"""The generated and the real cells of one name (or of all), and how often each is in every bootstrap sample."""


@dataclass(frozen=True)
class RealCells:
    """Real cells of one split, an entry a cell in each column."""

    genes: tuple[tuple[str, ...], ...]  # ranked, descending, unique
    types: tuple[str, ...]  # the type, or whatever else is the label of a dual pair
    labelled: tuple[bool, ...]  # whether supervised fine-tuning saw the label
    ids: tuple[str, ...] = ()
    states: tuple[str, ...] = ()  # what was done to each cell; empty where that does not matter

    def __len__(self) -> int:
        return len(self.genes)

    @property
    def names(self) -> tuple[str, ...]:
        """What each cell is called: its type, with its state where there are states."""
        if not self.states:
            return self.types
        return tuple(f"{kind}, {state}" for kind, state in zip(self.types, self.states, strict=True))

    @property
    def name_of(self) -> Mapping[str, str]:
        """The name of a cell by its id."""
        return dict(zip(self.ids, self.names, strict=False))

    @property
    def type_of(self) -> Mapping[str, str]:
        """The type of a cell by its id."""
        return dict(zip(self.ids, self.types, strict=False))

    def grouped(self, keys: Iterable[Any], *, labelled: bool = False) -> dict[Any, list[tuple[str, ...]]]:
        """Return the ranked genes by the key of each cell; with ``labelled`` those of labelled cells alone."""
        found: dict[Any, list[tuple[str, ...]]] = {}
        for key, genes, shown in zip(keys, self.genes, self.labelled, strict=True):
            if shown or not labelled:
                found.setdefault(key, []).append(genes)
        return found

    def by_state(self, *, labelled: bool = False) -> dict[tuple[str, str], list[tuple[str, ...]]]:
        """Return the ranked genes by (type, state), see :meth:`grouped`."""
        return self.grouped(zip(self.types, self.states, strict=True), labelled=labelled)


@dataclass(frozen=True)
class Reference:
    """Real cells in the declared space: what every column of the table is measured with."""

    embedding: Embedding  # the space, and
    bandwidth: float  # the kernel width, both from real training cells
    held_out: RealCells  # of the split
    points: NDArray[np.float64]
    train: RealCells  # for the baselines
    others: RealCells | None  # the floor of distances: of another split, nothing was fitted to them; None without any
    other_points: NDArray[np.float64]
    neighbours: tuple[int, ...]  # as NEIGHBOURS
    seed: int  # of bootstrap intervals and of drawing real cells
    resamples: int


def read_cell_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a cells file; a CellDualityError if it is missing or a row lacks a field."""
    rows = list(read_jsonl(path))
    for number, row in enumerate(rows, start=1):
        if missing := {"id", "split", "genes", "labelled"} - row.keys():
            what, where = f"no {min(missing)!r} in the row", f"{path}:{number}"
            raise CellDualityError(what, code="missing-field", where=where, hint="prepare the data again")
    return rows


def read_cells(
    path: Path,
    split: str,
    *,
    columns: Sequence[str] = ("cell_type",),
    state: str = "",
    sources: Collection[str] | None = None,
    rows: Iterable[Mapping[str, Any]] | None = None,
) -> RealCells:
    """Return the cells of ``split`` in a cells file, or in its ``rows``; a CellDualityError if there are none.

    The label of a cell is in the first of ``columns`` that it has, its state in the column ``state``, if any. Cells
    without are left out, but one with a state needs no label: it is :data:`ONE_KIND`. ``sources`` are the sets to take
    (the first part of a cell's id), None for all.
    """
    chosen = [
        row
        for row in (read_cell_rows(path) if rows is None else rows)
        if row["split"] == split
        and (state in row if state else not row.keys().isdisjoint(columns))
        and (sources is None or row["id"].partition("/")[0] in sources)
    ]
    if not chosen:
        what = f"no cell of split {split!r} has {state or ' or '.join(columns)}"
        raise CellDualityError(what, code="no-cells", where=str(path), hint="prepare the data again")
    return RealCells(
        tuple(tuple(row["genes"]) for row in chosen),
        tuple(str(next((row[column] for column in columns if column in row), ONE_KIND)) for row in chosen),
        tuple(bool(row["labelled"]) for row in chosen),
        tuple(str(row["id"]) for row in chosen),
        tuple(str(row[state]) for row in chosen) if state else (),
    )


def matched(labels: Names, wanted: Names, rng: np.random.Generator | None = None) -> NDArray[np.int64]:
    """Return the places of as many cells of each label as ``wanted`` holds, or all: the first ones, or by ``rng``."""
    names = np.asarray(labels)
    places = []
    for label, count in sorted(Counter(wanted).items()):
        found = np.flatnonzero(names == label)
        places.append(found[:count] if rng is None else rng.permutation(found)[:count])
    return np.sort(np.concatenate(places)) if places else np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Cells:
    """What a metric of cells is given: the cells that could be read, and real ones."""

    reference: Reference  # the real cells and their space, the seed and the number of resamples
    genes: Sequence[tuple[str, ...]]  # of each cell, ranked
    points: Matrix
    names: Sequence[str]  # what each cell was asked to be
    rows: Sequence[str]  # of each cell, then those of answers that could not be read
    draws: Sequence[tuple[Sample, Sample]]  # generated cells and real ones, in the proportions of what was asked for
    against: str  # what the real cells are
    answers: Sequence[Prediction] | None = None  # None of real cells

    def __len__(self) -> int:
        return len(self.genes)

    @classmethod
    def of(cls, predictions: Sequence[Prediction], reference: Reference) -> Cells:
        """Return the cells that ``predictions`` wrote; each was asked to be what the real cell of its row is called."""
        name_of = reference.held_out.name_of
        # In an order of their own, so that not even the last digit or an interval depends on the one they came in.
        made = sorted(predictions, key=lambda p: (p.id, p.sample, p.answer or ()))
        asked = {p.id: name_of.get(p.id, str(p.unknown)) for p in made}
        read, unread = [p for p in made if p.answer], [p for p in made if not p.answer]
        genes, names = [tuple(p.answer or ()) for p in read], np.array([asked[p.id] for p in read], dtype=str)
        points, samples = reference.embedding(genes), np.array([p.sample for p in read])
        real, against = _held_out([*asked.values()], reference)
        draws = [((points[samples == draw], names[samples == draw]), real) for draw in np.unique(samples)]
        rows = [p.id for p in (*read, *unread)]
        return cls(reference, genes, points, names.tolist(), rows, draws, f"against {against}", made)

    @classmethod
    def of_real(cls, asked: Sequence[str], reference: Reference) -> Cells:
        """Return the real cells of the split, whose metrics are the ceiling, or floor, of those of generated ones.

        Distances are to as many other real cells of the conditions ``asked`` for, or else of one half to the other.
        """
        held_out, rng, others = reference.held_out, np.random.default_rng(reference.seed), reference.others
        real, against = _held_out(asked, reference)
        points, names = real
        draws: list[tuple[Sample, Sample]] = []
        for _ in range(_REAL_DRAWS):
            if others is not None:
                places = matched(others.names, names, rng)
                draws.append(((reference.other_points[places], np.array(others.names, dtype=str)[places]), real))
                continue
            own = [rng.permutation(np.flatnonzero(names == name)) for name in np.unique(names)]
            one = np.concatenate([each[: len(each) // 2] for each in own])
            other = np.concatenate([each[len(each) // 2 : len(each) // 2 * 2] for each in own])
            draws.append(((points[one], names[one]), (points[other], names[other])))
        halved = f"one half of {against} against the other: fewer cells, hence more noise"
        against = f"other real cells against {against}" if others is not None else halved
        return cls(reference, held_out.genes, reference.points, held_out.names, held_out.ids, draws, against)

    @cached_property
    def groups(self) -> list[Places]:
        """The places of the cells of each name that has at least two, in the order of names."""
        names = np.asarray(self.names, dtype=str)
        return [own for name in np.unique(names) if len(own := np.flatnonzero(names == name)) > 1]

    @cached_property
    def group_resamples(self) -> tuple[list[Places], list[Places]]:
        """Two independent bootstraps: how often each cell of each group is in every sample."""
        rng = np.random.default_rng(self.reference.seed)
        one, other = ([resampled(len(own), rng) for own in self.groups] for _ in range(2))
        return one, other

    @cached_property
    def pairs(self) -> list[list[Pair]]:
        """Of each draw the cells type by type, in the proportions of the real ones, with their resamples.

        Types without generated cells are left out. Real cells and their resamples are the same in every draw.
        """
        found: list[list[Pair]] = []
        for draw, ((points, labels), (real, names)) in enumerate(self.draws):
            kept = matched(labels, names)
            points, labels = points[kept], labels[kept]
            found.append([])
            for place, name in enumerate(np.unique(names)):
                one, other = in_order(points[labels == name]), in_order(real[names == name])
                if len(one):
                    ours = resampled(len(one), np.random.default_rng([self.reference.seed, draw, place]))
                    theirs = resampled(len(other), np.random.default_rng([self.reference.seed, place]))
                    found[-1].append((one, other, (ours, theirs)))
        return found

    @cached_property
    def all_types(self) -> list[list[Pair]]:
        """Of each draw the cells of all types as one pair; resampled within types."""
        found = []
        for pairs in filter(None, self.pairs):
            ours, theirs, counts = zip(*pairs, strict=True)
            one, other = (np.concatenate(side, axis=1) for side in zip(*counts, strict=True))
            found.append([(np.concatenate(ours), np.concatenate(theirs), (one, other))])
        return found


def _held_out(asked: Sequence[str], reference: Reference) -> tuple[Sample, str]:
    """Return held-out cells in the proportions of the names ``asked`` for, and what they are called."""
    names = np.array(reference.held_out.names, dtype=str)
    chosen = matched(reference.held_out.names, asked, np.random.default_rng(reference.seed))
    return (reference.points[chosen], names[chosen]), f"{len(chosen)} real held-out cells"
