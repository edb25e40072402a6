"""The highest genes of many cells at once: compiled, one linear pass over the non-zeros of a block of rows."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

_DIGIT, _BUCKETS = 8, 256


def rank_rows(
    values: Any, ties: NDArray[np.int32], top: int, *, out: NDArray[np.signedinteger[Any]] | None = None
) -> tuple[NDArray[np.signedinteger[Any]], NDArray[np.bool_]]:
    """Return (ties of the ``top`` highest genes of every row, which ties were expressed anywhere).

    The first is cells by ``top`` and goes into ``out``, a new array by default: descending by value and then ascending
    by tie, filled up with -1. ``values`` are cells by genes, a scipy CSR matrix without duplicate entries, of any order
    of columns within a row; only positive ones count. ``ties`` are for every column its place among equals, each once,
    below ``values.shape[1]``; -1 leaves the gene out. The cost is linear in the non-zeros, whatever the ties are: a
    radix sort by (value, tie), after a radix selection where a row holds more than ``top`` genes.
    """
    ranked: NDArray[np.signedinteger[Any]]
    ranked = np.empty((values.shape[0], top), dtype=np.int32) if out is None else out
    expressed = np.zeros(values.shape[1], dtype=np.bool_)
    _rank(values.data, values.indices, values.indptr, ties, ranked, expressed)
    return ranked, expressed


def _rank_block(
    data: Any, indices: Any, indptr: Any, ties: Any, ranked: Any, expressed: Any
) -> None:  # pragma: no cover - compiled
    longest = 0
    for row in range(len(indptr) - 1):
        longest = max(longest, indptr[row + 1] - indptr[row])
    values = np.empty(longest, np.float64)
    # The bits of a positive float order as it does; upside down they order the highest first.
    keys = values.view(np.uint64)
    places = np.empty(longest, np.int32)
    spare_keys, spare_places = np.empty(longest, np.uint64), np.empty(longest, np.int32)
    top = ranked.shape[1]
    for row in range(len(indptr) - 1):
        count = 0
        for entry in range(indptr[row], indptr[row + 1]):
            tie = ties[indices[entry]]
            if data[entry] > 0 and tie >= 0:
                values[count] = data[entry]
                places[count] = tie
                expressed[tie] = True
                count += 1
        for entry in range(count):
            keys[entry] = ~keys[entry]
        if count > top:
            count = _keep_lowest(keys, places, count, top)
        _sort(keys, places, spare_keys, spare_places, count)
        for entry in range(top):
            ranked[row, entry] = places[entry] if entry < count else -1


def _keep_lowest_keys(keys: Any, places: Any, count: int, top: int) -> int:  # pragma: no cover - compiled
    """Move the ``top`` lowest keys, and all that equal the last of them, to the front; return how many they are."""
    lowest, highest = keys[0], keys[0]
    for entry in range(count):
        lowest, highest = min(lowest, keys[entry]), max(highest, keys[entry])
    buckets = np.empty(_BUCKETS, np.int64)
    shift, wanted = 64, top
    prefix = np.uint64(0)
    while shift > 0:
        shift -= _DIGIT
        above = np.uint64(shift + _DIGIT)
        if (lowest >> np.uint64(shift)) == (highest >> np.uint64(shift)):
            prefix = lowest >> np.uint64(shift)
            continue
        buckets[:] = 0
        for entry in range(count):
            if shift == 64 - _DIGIT or (keys[entry] >> above) == prefix:
                buckets[(keys[entry] >> np.uint64(shift)) & np.uint64(_BUCKETS - 1)] += 1
        digit: Any = 0
        while buckets[digit] < wanted:
            wanted -= buckets[digit]
            digit += 1
        prefix = (prefix << np.uint64(_DIGIT)) | np.uint64(digit)
        if buckets[digit] == wanted:  # nothing lies between the last of the lowest and the end of its bucket
            break
    kept = 0
    for entry in range(count):
        if (keys[entry] >> np.uint64(shift)) <= prefix:
            keys[kept], places[kept] = keys[entry], places[entry]
            kept += 1
    return kept


def _radix_sort(keys: Any, places: Any, spare_keys: Any, spare_places: Any, count: int) -> None:  # pragma: no cover
    """Sort (key, place) pairs, the lowest first; bytes that all pairs share are passed over."""
    if count < 2:
        return
    differing, moved = np.uint64(0), np.uint64(0)
    ordered = True
    for entry in range(1, count):
        differing |= keys[entry] ^ keys[0]
        moved |= np.uint64(places[entry] ^ places[0])
        ordered &= places[entry] > places[entry - 1]
    buckets = np.empty(_BUCKETS, np.int64)
    swapped = False
    for step in range(12):  # four bytes of the place, then eight of the key
        of_key = step >= 4
        shift = np.uint64(_DIGIT * (step - 4 if of_key else step))
        bits = differing if of_key else (np.uint64(0) if ordered else moved)
        if (bits >> shift) & np.uint64(_BUCKETS - 1) == 0:
            continue
        if of_key:
            _sort_byte(keys, keys, places, spare_keys, spare_places, count, shift, buckets)
        else:
            _sort_byte(places, keys, places, spare_keys, spare_places, count, shift, buckets)
        keys, spare_keys = spare_keys, keys
        places, spare_places = spare_places, places
        swapped = not swapped
    if swapped:
        spare_keys[:count], spare_places[:count] = keys[:count], places[:count]


def _counting_sort(
    by: Any, keys: Any, places: Any, to_keys: Any, to_places: Any, count: int, shift: Any, buckets: Any
) -> None:  # pragma: no cover - compiled
    """Copy (key, place) pairs in the order of one byte of ``by``, which is one of the two; equals stay in order."""
    buckets[:] = 0
    for entry in range(count):
        buckets[(np.uint64(by[entry]) >> shift) & np.uint64(_BUCKETS - 1)] += 1
    start = 0
    for digit in range(_BUCKETS):
        start, buckets[digit] = start + buckets[digit], start
    for entry in range(count):
        slot = (np.uint64(by[entry]) >> shift) & np.uint64(_BUCKETS - 1)
        to_keys[buckets[slot]], to_places[buckets[slot]] = keys[entry], places[entry]
        buckets[slot] += 1


def _compiled(function: Any) -> Any:
    try:  # kept on disk, since compiling takes seconds
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written to
        return numba.njit(nogil=True)(function)


_keep_lowest = _compiled(_keep_lowest_keys)
_sort_byte = _compiled(_counting_sort)
_sort = _compiled(_radix_sort)
_rank = _compiled(_rank_block)
