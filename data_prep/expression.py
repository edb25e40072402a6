"""How expression falls with rank: what gives the ranks of a written cell back as values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.cells import CellTable, log1p_per_10k

MOST_CELLS = 4096
"""Cells that the curve is the mean of, at most: the first ones of a set."""


def expression_at_rank(table: CellTable, cells: NDArray[np.bool_], genes: frozenset[str], top: int) -> dict[str, Any]:
    """Return the mean expression at each rank, of the chosen ``cells`` and of ``genes`` alone.

    Returns
    -------
    ``mean`` and ``cells``, an entry for each of the ranks 1 .. ``top`` that any cell has: log1p of counts per 10,000,
    or the logarithms that the table holds; and how many cells have the rank. ``unit`` says which it is.

    Examples
    --------
    >>> import anndata, numpy as np, pandas
    >>> made = anndata.AnnData(np.array([[1.0, 3, 0], [2, 2, 6]]), var=pandas.DataFrame(index=["A", "B", "C"]))
    >>> expression_at_rank(CellTable.of(made), np.array([True, False]), frozenset("AB"), top=3)["cells"]
    [1, 1]
    """
    kept = np.array([place for place, gene in enumerate(table.genes) if gene in genes], dtype=np.int64)
    total, count, first, left = np.zeros(top), np.zeros(top, dtype=np.int64), 0, MOST_CELLS
    for block in table.blocks():
        rows = np.flatnonzero(cells[first : first + block.shape[0]])[:left]
        first, left = first + block.shape[0], left - len(rows)
        values = (log1p_per_10k(block[rows]) if table.counts else block[rows].tocsr())[:, kept]
        for start, end in zip(values.indptr, values.indptr[1:], strict=False):
            own = np.sort(values.data[start:end])[::-1]
            own = own[own > 0][:top]
            total[: len(own)] += own
            count[: len(own)] += 1
        if not left:
            break
    ranks = int((count > 0).sum())
    return {
        "mean": (total[:ranks] / count[:ranks]).round(6).tolist(),
        "cells": count[:ranks].tolist(),
        "unit": "log1p of counts per 10,000" if table.counts else "the logarithms that the set holds",
    }
