"""The real cells that generated ones are held against, and the space in which they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.embedding import Embedding
from cellduality_plugin.files import read_jsonl

NEIGHBOURS = (10, 3, 5, 25)
"""The k of the k-NN classifiers, the headline first."""


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

    The label of a cell is in the first of ``columns`` that it has, its state, if that matters, in the column ``state``;
    cells without are left out. ``sources`` are the sets to take (the first part of a cell's id), None for all.
    """
    chosen = [
        row
        for row in (read_cell_rows(path) if rows is None else rows)
        if row["split"] == split
        and not row.keys().isdisjoint(columns)
        and (not state or state in row)
        and (sources is None or row["id"].partition("/")[0] in sources)
    ]
    if not chosen:
        wanted = " or ".join(columns) + (f" and {state}" if state else "")
        what = f"no cell of split {split!r} has {wanted}"
        raise CellDualityError(what, code="no-cells", where=str(path), hint="prepare the data again")
    return RealCells(
        tuple(tuple(row["genes"]) for row in chosen),
        tuple(str(next(row[column] for column in columns if column in row)) for row in chosen),
        tuple(bool(row["labelled"]) for row in chosen),
        tuple(str(row["id"]) for row in chosen),
        tuple(str(row[state]) for row in chosen) if state else (),
    )


def matched(labels: Sequence[str], wanted: Sequence[str], rng: np.random.Generator | None = None) -> NDArray[np.int64]:
    """Return the places of as many cells of each label as ``wanted`` holds, or of all there are if that is fewer.

    ``rng`` draws them; without it the first ones are taken.
    """
    names = np.asarray(labels)
    places = []
    for label, count in sorted(Counter(wanted).items()):
        found = np.flatnonzero(names == label)
        places.append(found[:count] if rng is None else rng.permutation(found)[:count])
    return np.sort(np.concatenate(places)) if places else np.empty(0, dtype=np.int64)
