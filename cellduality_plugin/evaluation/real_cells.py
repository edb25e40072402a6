"""The real cells that generated ones are held against."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.metrics import Labels
from cellduality_plugin.files import read_jsonl


@dataclass(frozen=True)
class RealCells:
    """Real cells of one split.

    Parameters
    ----------
    genes
        One ranked gene list a cell, descending, unique.
    types
        One cell type a cell.
    labelled
        Whether supervised fine-tuning saw the cell's type.
    """

    genes: tuple[tuple[str, ...], ...]
    types: tuple[str, ...]
    labelled: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.genes)


def read_cells(path: Path, split: str) -> RealCells:
    """Return the cells of ``split`` in a cells file.

    Raises
    ------
    CellDualityError
        If the file is missing, a row lacks a field, or the split is empty.
    """
    rows = []
    for number, row in enumerate(read_jsonl(path), start=1):
        missing = {"split", "genes", "cell_type", "labelled"} - row.keys()
        if missing:
            raise CellDualityError(
                f"no {min(missing)!r} in the row", where=f"{path}:{number}", mend="prepare the data again"
            )
        if row["split"] == split:
            rows.append(row)
    if not rows:
        raise CellDualityError(f"no cells in split {split!r}", where=str(path), mend="use train, validation or test")
    return RealCells(
        tuple(tuple(row["genes"]) for row in rows),
        tuple(str(row["cell_type"]) for row in rows),
        tuple(bool(row["labelled"]) for row in rows),
    )


def matched(labels: Labels, wanted: Sequence[str], rng: np.random.Generator | None = None) -> NDArray[np.int64]:
    """Return the places of as many cells of each label as ``wanted`` holds, or of all there are if that is fewer.

    Distances between samples mean something only if both hold the labels in the same proportions.

    Parameters
    ----------
    labels
        One label a cell.
    wanted
        Labels, as often as cells are wanted.
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
