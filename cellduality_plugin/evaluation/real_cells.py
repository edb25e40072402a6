"""The real cells that generated ones are held against."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import read_jsonl


@dataclass(frozen=True)
class RealCells:
    """Real cells of one split.

    Parameters
    ----------
    genes
        One ranked gene list a cell, descending, unique.
    types
        One label a cell: its type, or whatever else a dual pair tells cells apart by.
    labelled
        Whether supervised fine-tuning saw the cell's label.
    ids
        The id of each cell.
    states
        What was done to each cell; empty where that is of no matter.
    """

    genes: tuple[tuple[str, ...], ...]
    types: tuple[str, ...]
    labelled: tuple[bool, ...]
    ids: tuple[str, ...] = ()
    states: tuple[str, ...] = ()

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

    def by_state(self, *, labelled: bool = False) -> dict[tuple[str, str], list[tuple[str, ...]]]:
        """Return the ranked genes by (type, state); with ``labelled`` those of labelled cells alone."""
        found: dict[tuple[str, str], list[tuple[str, ...]]] = {}
        for genes, kind, state, shown in zip(self.genes, self.types, self.states, self.labelled, strict=True):
            if shown or not labelled:
                found.setdefault((kind, state), []).append(genes)
        return found


def read_cells(
    path: Path,
    split: str,
    *,
    columns: Sequence[str] = ("cell_type",),
    state: str = "",
    sources: Collection[str] | None = None,
) -> RealCells:
    """Return the cells of ``split`` in a cells file.

    Parameters
    ----------
    columns
        Which columns hold the labels: of each cell the first that it has. Cells with none are left out.
    state
        Which column holds the states, if they matter. Cells without it are left out.
    sources
        The sets to take cells of (the first part of a cell's id); None for all.

    Raises
    ------
    CellDualityError
        If the file is missing, a row lacks a field, or the split is empty.
    """
    rows = []
    for number, row in enumerate(read_jsonl(path), start=1):
        if missing := {"id", "split", "genes", "labelled"} - row.keys():
            what = f"no {min(missing)!r} in the row"
            raise CellDualityError(what, where=f"{path}:{number}", hint="prepare the data again")
        if row["split"] == split:
            rows.append(row)
    if not rows:
        raise CellDualityError(f"no cells in split {split!r}", where=str(path), hint="use train, validation or test")
    chosen = [
        row
        for row in rows
        if not row.keys().isdisjoint(columns)
        and (not state or state in row)
        and (sources is None or row["id"].partition("/")[0] in sources)
    ]
    if not chosen:
        wanted = " or ".join(columns) + (f", and {state}" if state else "")
        raise CellDualityError(f"no cell of split {split!r} has {wanted}", where=str(path), hint="prepare again")
    return RealCells(
        tuple(tuple(row["genes"]) for row in chosen),
        tuple(str(next(row[column] for column in columns if column in row)) for row in chosen),
        tuple(bool(row["labelled"]) for row in chosen),
        tuple(str(row["id"]) for row in chosen),
        tuple(str(row[state]) for row in chosen) if state else (),
    )


def matched(labels: Sequence[str], wanted: Sequence[str], rng: np.random.Generator | None = None) -> NDArray[np.int64]:
    """Return the places of as many cells of each label as ``wanted`` holds, or of all there are if that is fewer.

    Parameters
    ----------
    labels, wanted
        One label a cell; labels as often as cells are wanted.
    rng
        Draws the cells; without it the first ones are taken.

    Examples
    --------
    >>> matched(["B", "T", "B", "T", "B"], ["B", "B", "T", "NK"]).tolist()
    [0, 1, 2]
    """
    names = np.asarray(labels)
    places = []
    for label, count in sorted(Counter(wanted).items()):
        found = np.flatnonzero(names == label)
        places.append(found[:count] if rng is None else rng.permutation(found)[:count])
    return np.sort(np.concatenate(places)) if places else np.empty(0, dtype=np.int64)
