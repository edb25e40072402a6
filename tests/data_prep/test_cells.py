from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellduality_plugin.cell_sentences import Cell, sentence
from cellduality_plugin.parsing import Genes, join_response
from cellduality_plugin.vocabulary import Vocabulary
from data_prep import ranking
from data_prep.cells import FEW_GENES, UNSPEAKABLE_GENE, RankedCells, rank_cells, speakable
from data_prep.h5ad import matrices
from data_prep.h5ad.loaders import load_h5ad
from data_prep.ranking import rank_rows
from tests.refused import refused

SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 40))
VALUES = {
    "few, so that many tie": st.sampled_from([0.0, 1.0, 2.0, 2.5]),
    "any": st.floats(0, 2.0**100, width=32),
    "of one magnitude": st.floats(1.0, np.nextafter(np.float32(1.0), np.float32(2.0)), width=32),
    "some below zero": st.sampled_from([-1.0, 0.0, 2.0]),
}


def adata_of(values: np.ndarray, genes: list[str]) -> anndata.AnnData:
    obs = pd.DataFrame({"cell_type": ["B"] * len(values)}, index=[f"c{row}" for row in range(len(values))])
    return anndata.AnnData(X=scipy.sparse.csr_matrix(values), obs=obs, var=pd.DataFrame(index=genes))


def rank(values: np.ndarray, names: list[str], top: int = 4, **how: object) -> RankedCells:
    return rank_cells(adata_of(values, names), source="t", top=top, min_genes=2, **how)


def test_what_is_left_out_is_counted_by_reason():
    values = np.array([[1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 9.0, 9.0], [5.0, 4.0, 9.0, 9.0]])
    ranked = rank(values, ["A", "B", "C D", "E,F"])
    assert list(ranked) == [Cell("t/c0", ("B", "A"), {"cell_type": "B"}), Cell("t/c2", ("A", "B"), {"cell_type": "B"})]
    assert ranked.known(["cell_type"]) == {"t/c0": {"cell_type": "B"}, "t/c2": {"cell_type": "B"}}
    assert ranked.expressed == ("A", "B")
    assert ranked.drops == {UNSPEAKABLE_GENE: 2, FEW_GENES: 1}
    assert [cell.genes for cell in rank(values, [*"ABCD"], genes="AD")] == [("D", "A"), ("D", "A")]


def test_equals_are_ranked_by_name_and_duplicates_summed_in_a_copy():
    twice = scipy.sparse.csr_matrix((np.array([1.0, 2.0, 2.0]), np.array([0, 1, 0]), np.array([0, 3])), shape=(1, 2))
    adata = adata_of(np.zeros((1, 2)), ["A", "B"])
    adata.X = twice
    assert [cell.genes for cell in rank_cells(adata, source="t", top=2, min_genes=2)] == [("A", "B")]
    assert adata.X.nnz == 3
    assert rank(np.ones((1, 3)), ["B", "C", "A"], top=2).genes(0) == ("A", "B")


def test_no_cell_left_is_refused():
    with refused("too-few-genes"):
        rank(np.eye(3), ["A", "B", "C"])
    with refused("no-genes"):
        rank(np.ones((3, 3)), ["A 1", "B, C", "<D>"])


@pytest.mark.parametrize("longest", ["first", "last"])
def test_blocks_of_a_file_rank_like_all_of_it_and_are_as_wide_as_the_longest_cell(longest, write_h5ad, monkeypatch):
    values = np.tri(24, 12, k=-12, dtype=np.float32) + np.eye(24, 12, dtype=np.float32) * 30
    path = write_h5ad(values[::-1].copy() if longest == "first" else values)
    whole = rank_cells(load_h5ad(path, "kind", expression="counts"), source="toy", top=12, min_genes=1)
    monkeypatch.setattr(matrices, "BLOCK", 20)
    loaded = load_h5ad(path, "kind", expression="counts")
    in_blocks = rank_cells(loaded, source="toy", top=20_000, min_genes=1)
    assert len(list(loaded.blocks())) > 5
    assert (in_blocks.top.dtype, in_blocks.top.shape[1]) == (np.int16, 12)
    assert [*in_blocks, in_blocks.names, in_blocks.expressed] == [*whole, whole.names, whole.expressed]


def test_places_past_32767_are_kept():
    values, names = np.zeros((2, 40_000), np.float32), [f"G{place:05}" for place in range(40_000)]
    values[:, -10:] = np.arange(1, 11)
    ranked = rank_cells(anndata.AnnData(values, var=pd.DataFrame(index=names)), source="toy", top=10)
    assert ranked.top.dtype == np.int32
    assert ranked.genes(0) == tuple(names[:-11:-1])


@given(st.lists(st.text(min_size=1).filter(speakable), min_size=1, max_size=8, unique=True))
def test_every_speakable_name_is_read_back_as_it_was_written(names):
    answer = Genes().parse(join_response(sentence(names)), Vocabulary(genes=tuple(names), labels={}))
    assert answer.value == tuple(names)


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
        values, rng = values.astype(dtype), np.random.default_rng(seed)
        ties = rng.permutation(values.shape[1]).astype(np.int32)
        ties[:left_out] = -1
        rows, genes = values.shape  # all values are stored, zeros too, in any order
        order = np.concatenate([genes * row + rng.permutation(genes) for row in range(rows)])
        parts = values.ravel()[order], order % genes, np.arange(rows + 1) * genes
        cells = scipy.sparse.csr_matrix(parts, shape=values.shape)
        ranked, expressed = rank_rows(cells, ties, top)
        assert ranked.tolist() == [plainly(row, ties, top) for row in values]
        seen = {int(tie) for tie, column in zip(ties, values.T, strict=True) if tie >= 0 and (column > 0).any()}
        assert set(np.flatnonzero(expressed).tolist()) == seen

    check()


def test_doubles_that_a_float_cannot_tell_apart_are_ranked():
    close = 1.0 + np.arange(300) * 2.0**-52
    ranked, _ = rank_rows(scipy.sparse.csr_matrix(close[None]), np.arange(300, dtype=np.int32), 7)
    assert ranked[0].tolist() == list(range(299, 292, -1))


def test_where_nothing_can_be_kept_it_is_compiled_all_the_same(monkeypatch):
    njit = ranking.numba.njit

    def without_a_place(*functions, cache=False, **settings):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(*functions, **settings)  # numba decorates its own with it, too

    monkeypatch.setattr(ranking.numba, "njit", without_a_place)
    assert ranking._compiled(lambda number: number + 1)(1) == 2
