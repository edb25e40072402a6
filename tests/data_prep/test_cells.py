from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from cellduality_plugin.cell_sentences import Cell, sentence
from cellduality_plugin.parsing import Genes, join_response
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.cells import FEW_GENES, UNSPEAKABLE_GENE, rank_cells, speakable
from data_prep.h5ad.loaders import load_h5ad
from data_prep.h5ad.matrices import StoredMatrix
from tests.refused import refused


def adata_of(values: np.ndarray, genes: list[str]) -> anndata.AnnData:
    obs = pd.DataFrame({"cell_type": ["B"] * len(values)}, index=[f"c{row}" for row in range(len(values))])
    return anndata.AnnData(X=scipy.sparse.csr_matrix(values), obs=obs, var=pd.DataFrame(index=genes))


@settings(max_examples=25)
@given(
    st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.5]), min_size=9, max_size=9), min_size=1, max_size=6),
    st.integers(2, 9),
    st.permutations(range(9)),
)
def test_ranking_agrees_with_plain_sorting_whatever_the_order_of_columns(rows, top, order):
    values, names = np.array(rows), [f"G{column}" for column in range(9)]
    values[:, 0] = 3.0  # so that every cell expresses something
    adata = adata_of(values[:, list(order)], [names[column] for column in order])
    cells = rank_cells(adata, source="toy", top=top, min_genes=1)
    for cell, row in zip(cells, values, strict=True):
        expected = sorted((-value, name) for value, name in zip(row, names, strict=True) if value > 0)
        assert cell.genes == tuple(name for _, name in expected[:top])


def test_what_is_left_out_is_counted_by_reason():
    values = np.array([[1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 9.0, 9.0], [5.0, 4.0, 9.0, 9.0]])
    ranked = rank_cells(adata_of(values, ["A", "B", "C D", "E,F"]), source="t", top=4, min_genes=2)
    assert list(ranked) == [Cell("t/c0", ("B", "A"), {"cell_type": "B"}), Cell("t/c2", ("A", "B"), {"cell_type": "B"})]
    assert ranked.known(["cell_type"]) == {"t/c0": {"cell_type": "B"}, "t/c2": {"cell_type": "B"}}
    assert ranked.expressed == ("A", "B")
    assert ranked.drops == {UNSPEAKABLE_GENE: 2, FEW_GENES: 1}
    few = rank_cells(adata_of(values, list("ABCD")), source="t", top=4, min_genes=2, genes="AD")
    assert [cell.genes for cell in few] == [("D", "A"), ("D", "A")]


def test_no_cell_left_is_refused():
    with refused("too-few-genes"):
        rank_cells(adata_of(np.eye(3), ["A", "B", "C"]), source="toy", top=3, min_genes=2)
    with refused("no-genes"):
        rank_cells(adata_of(np.ones((3, 3)), ["A 1", "B, C", "<D>"]), source="toy", top=3, min_genes=2)


def test_what_is_kept_is_as_wide_as_the_longest_cell_wherever_it_stands(write_h5ad, monkeypatch):
    monkeypatch.setattr(StoredMatrix.__init__, "__defaults__", (20,))
    values = np.tri(24, 12, k=-12, dtype=np.float32)[::-1].copy() + np.eye(24, 12, dtype=np.float32) * 30
    for order in (slice(None), slice(None, None, -1)):  # the longest cell first, and last
        loaded = load_h5ad(write_h5ad(values[order]), "kind", expression="counts")
        ranked = rank_cells(loaded, source="toy", top=20_000, min_genes=1)
        assert ranked.top.shape[1] == 12
        expected = rank_cells(adata_of(values[order], list(loaded.genes)), source="toy", top=12, min_genes=1)
        assert [cell.genes for cell in ranked] == [cell.genes for cell in expected]


@given(st.lists(st.text(min_size=1).filter(speakable), min_size=1, max_size=8, unique=True))
def test_every_speakable_name_is_read_back_as_it_was_written(names):
    answer = Genes().parse(join_response(sentence(names)), Vocabulary(genes=tuple(names), labels={}))
    assert answer.value == tuple(names)


def test_blocks_of_a_file_rank_like_all_of_it(write_h5ad, monkeypatch):
    path = write_h5ad()
    whole = rank_cells(load_h5ad(path, "kind"), source="toy", top=7, min_genes=7)
    monkeypatch.setattr(StoredMatrix.__init__, "__defaults__", (20,))
    loaded = load_h5ad(path, "kind")
    in_blocks = rank_cells(loaded, source="toy", top=7, min_genes=7)
    assert len(list(loaded.blocks())) > 5
    assert in_blocks.top.dtype == np.int32
    assert in_blocks.top.tolist() == whole.top.tolist()
    assert list(in_blocks) == list(whole)
    assert (in_blocks.names, in_blocks.expressed) == (whole.names, whole.expressed)
    assert [sentence(cell.genes) for cell in in_blocks] == in_blocks.sentences()


def test_matrix_of_the_caller_stays_as_it_is():
    twice = scipy.sparse.csr_matrix((np.array([1.0, 2.0, 2.0]), np.array([0, 1, 0]), np.array([0, 3])), shape=(1, 2))
    adata = adata_of(np.zeros((1, 2)), ["A", "B"])
    adata.X = twice
    (cell,) = rank_cells(adata, source="t", top=2, min_genes=2)
    assert cell.genes == ("A", "B")
    assert adata.X.nnz == 3
