"""The highest genes of many cells at once: compiled, one pass over the non-zeros of a block of rows."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

SHORT = 256  # genes of a cell up to which the compiled pass is the faster one; it moves as many for each it takes in


def rank_rows(
    values: Any, ties: NDArray[np.int32], top: int, *, out: NDArray[np.int32] | None = None
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Return (ties of the ``top`` highest genes of every row, which ties were expressed anywhere).

    The first is cells by ``top`` and goes into ``out``, a new array by default: descending by value and then ascending
    by tie, filled up with -1. ``values`` are cells by genes, a scipy CSR matrix without duplicate entries, of any order
    of columns within a row; only positive ones count. ``ties`` are for every column its place among equals, each once,
    below ``values.shape[1]``; -1 leaves the gene out.
    """
    ranked = np.empty((values.shape[0], top), dtype=np.int32) if out is None else out
    expressed = np.zeros(values.shape[1], dtype=np.bool_)
    if top <= SHORT:
        _rank(values.data, values.indices, values.indptr, ties, ranked, expressed)
        return ranked, expressed
    for row, (first, end) in enumerate(zip(values.indptr, values.indptr[1:], strict=False)):
        own, places = values.data[first:end], ties[values.indices[first:end]]
        counted = (own > 0) & (places >= 0)
        own, places = own[counted], places[counted]
        order = np.lexsort((places, -own))[:top]
        ranked[row, : len(order)], ranked[row, len(order) :] = places[order], -1
        expressed[places] = True
    return ranked, expressed


def _rank_block(
    data: Any, indices: Any, indptr: Any, ties: Any, ranked: Any, expressed: Any
) -> None:  # pragma: no cover - compiled
    top = ranked.shape[1]
    values = np.empty(top, data.dtype)  # of the genes in ``ranked``, in their order
    for row in range(len(indptr) - 1):
        count = 0
        places = ranked[row]
        for entry in range(indptr[row], indptr[row + 1]):
            value, tie = data[entry], ties[indices[entry]]
            if not value > 0 or tie < 0:
                continue
            expressed[tie] = True
            if count < top:
                count += 1
            elif value < values[top - 1] or (value == values[top - 1] and tie > places[top - 1]):
                continue
            at = count - 1
            while at > 0 and (values[at - 1] < value or (values[at - 1] == value and places[at - 1] > tie)):
                values[at], places[at] = values[at - 1], places[at - 1]
                at -= 1
            values[at], places[at] = value, tie
        places[count:] = -1


def _compiled(function: Any) -> Any:
    try:  # kept on disk, since compiling takes seconds
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written to
        return numba.njit(nogil=True)(function)


_rank = _compiled(_rank_block)
