"""The highest genes of many cells at once: compiled, one pass over the non-zeros of a block of rows."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray


def rank_rows(
    values: Any, ties: NDArray[np.int32], top: int, *, out: NDArray[np.int32] | None = None
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Return (ties of the ``top`` highest genes of every row, which ties were expressed anywhere).

    The first is cells by ``top`` and goes into ``out``, a new array by default: descending by value and then ascending
    by tie, filled up with -1. ``values`` are cells by genes, a scipy CSR matrix without duplicate entries, of any order
    of columns within a row; only positive ones count. ``ties`` are for every column its place among equals, each once,
    below ``values.shape[1]``; -1 leaves the gene out. A heap keeps the best so far: the cost is that of the non-zeros,
    and of ``top`` times its logarithm.
    """
    ranked = np.empty((values.shape[0], top), dtype=np.int32) if out is None else out
    expressed = np.zeros(values.shape[1], dtype=np.bool_)
    _rank(values.data, values.indices, values.indptr, ties, ranked, expressed)
    return ranked, expressed


def _compiled(function: Any) -> Any:
    try:  # kept on disk, since compiling takes seconds
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written to
        return numba.njit(nogil=True)(function)


@_compiled
def _sift(values: Any, places: Any, at: int, count: int) -> None:  # pragma: no cover - compiled
    """Move what stands at ``at`` down the heap of the first ``count``, on top of which is the gene that ranks last."""
    value, tie = values[at], places[at]
    while 2 * at + 1 < count:
        child = 2 * at + 1
        other = child + 1
        if other < count and (
            values[other] < values[child] or (values[other] == values[child] and places[other] > places[child])
        ):
            child = other
        if value < values[child] or (value == values[child] and tie > places[child]):
            break
        values[at], places[at] = values[child], places[child]
        at = child
    values[at], places[at] = value, tie


@_compiled
def _rank(
    data: Any, indices: Any, indptr: Any, ties: Any, ranked: Any, expressed: Any
) -> None:  # pragma: no cover - compiled
    top = ranked.shape[1]
    values = np.empty(top, data.dtype)  # of the genes in a row of ``ranked``, in their order
    for row in range(len(indptr) - 1):
        count, places = 0, ranked[row]
        for entry in range(indptr[row], indptr[row + 1]):
            value, tie = data[entry], ties[indices[entry]]
            if not value > 0 or tie < 0:
                continue
            expressed[tie] = True
            if count < top:
                values[count], places[count] = value, tie
                count += 1
                for at in range(top // 2 - 1 if count == top else -1, -1, -1):
                    _sift(values, places, at, top)
            elif value > values[0] or (value == values[0] and tie < places[0]):
                values[0], places[0] = value, tie
                _sift(values, places, 0, top)
        for at in range(count // 2 - 1 if count < top else -1, -1, -1):
            _sift(values, places, at, count)
        for last in range(count - 1, 0, -1):  # the one that ranks last goes behind the others
            values[0], values[last] = values[last], values[0]
            places[0], places[last] = places[last], places[0]
            _sift(values, places, 0, last)
        places[count:] = -1
