from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from data_prep import ranking
from data_prep.ranking import rank_rows, write_sentences

SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 40))
VALUES = {
    "few, so that many tie": st.sampled_from([0.0, 1.0, 2.0, 2.5]),
    "any": st.floats(0, 2.0**100, width=32),
    "of one magnitude": st.floats(1.0, np.nextafter(np.float32(1.0), np.float32(2.0)), width=32),
}


def plainly(row: np.ndarray, ties: np.ndarray, top: int) -> list[int]:
    ranked = sorted((-float(value), int(tie)) for value, tie in zip(row, ties, strict=True) if value > 0 and tie >= 0)
    return ([tie for _, tie in ranked] + [-1] * top)[:top]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("elements", VALUES.values(), ids=VALUES)
def test_ranking_is_the_sort_it_stands_for(elements, dtype):
    @given(
        values=SHAPES.flatmap(lambda shape: arrays(np.float32, shape, elements=elements)),
        top=st.integers(1, 45),
        seed=st.integers(0, 99),
        left_out=st.integers(0, 3),
    )
    def check(values, top, seed, left_out):
        values = values.astype(dtype)
        ties = np.random.default_rng(seed).permutation(values.shape[1]).astype(np.int32)
        ties[:left_out] = -1
        ranked, expressed = rank_rows(scipy.sparse.csr_matrix(values), ties, top)
        assert ranked.tolist() == [plainly(row, ties, top) for row in values]
        seen = {int(tie) for tie, column in zip(ties, values.T, strict=True) if tie >= 0 and (column > 0).any()}
        assert set(np.flatnonzero(expressed).tolist()) == seen

    check()


def test_doubles_that_a_float_cannot_tell_apart_are_ranked():
    close = 1.0 + np.arange(300) * 2.0**-52
    ranked, _ = rank_rows(scipy.sparse.csr_matrix(close[None]), np.arange(300, dtype=np.int32), 7)
    assert ranked[0].tolist() == list(range(299, 292, -1))


def test_stored_zeros_and_negative_values_are_not_expressed():
    cells = scipy.sparse.csr_matrix((np.array([0.0, -1.0, 2.0]), np.array([0, 1, 2]), np.array([0, 3])), shape=(1, 3))
    ranked, expressed = rank_rows(cells, np.arange(3, dtype=np.int32), 3)
    assert ranked.tolist() == [[2, -1, -1]]
    assert expressed.tolist() == [False, False, True]


def test_order_of_entries_within_a_row_does_not_matter():
    rng = np.random.default_rng(0)
    values, columns = rng.integers(1, 4, 200).astype(np.float32), rng.permutation(200)
    ties = rng.permutation(200).astype(np.int32)
    found = []
    for order in (np.argsort(columns), np.arange(200)):
        cells = scipy.sparse.csr_matrix((values[order], columns[order], np.array([0, 200])), shape=(1, 200))
        found.append([rank_rows(cells, ties, top)[0].tolist() for top in (5, 64, 200)])
    assert found[0] == found[1]


@given(
    st.lists(st.text(min_size=1, max_size=40).filter(lambda name: name.split() == [name]), min_size=1, max_size=9),
    st.data(),
)
def test_sentences_are_the_names_with_one_space_between(names, data):
    places = st.lists(st.integers(0, len(names) - 1), max_size=7)
    rows = data.draw(st.lists(places, max_size=5)) * data.draw(st.sampled_from([1, 9]))  # more than a buffer holds
    ranked = np.full((len(rows), 7), -1, np.int32)
    for row, chosen in zip(ranked, rows, strict=True):
        row[: len(chosen)] = chosen
    assert write_sentences(ranked, names) == [" ".join(names[place] for place in chosen) for chosen in rows]


def test_where_nothing_can_be_kept_it_is_compiled_all_the_same(monkeypatch):
    njit = ranking.numba.njit

    def without_a_place(*functions, cache=False, **settings):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(*functions, **settings)  # numba decorates its own with it, too

    monkeypatch.setattr(ranking.numba, "njit", without_a_place)
    assert ranking._compiled(lambda number: number + 1)(1) == 2
