"""Files that R writes, made here by a writer of the tests, and the sets that are published as such.

The reader was held against files of real R: of those in XDR that rdata 1.1.0 is tested on it reads all but functions,
environments and file handles, with the values that an earlier, fuller version read.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.datasets import DATASETS
from data_prep.datasets.lung_lines_10x import IC50, NOT_SCREENED
from data_prep.loading.r_data import read_r
from tests.data_prep.conftest import toy_cells
from tests.data_prep.datasets.conftest import RWriter, SparseWithNames, counts, load, refuse
from tests.refused import refused

FRAME = pd.DataFrame(
    {"kind": pd.Categorical(["B", None, "T"], categories=["T", "B"]), "n": [1.5, 2.0, 3.0], "name": ["x", None, "ñ"]},
    index=["c1", "c2", "c3"],
)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_every_packing_and_version_is_read(save_r, pack, version):
    path = save_r("a.rda", pack, version, frame=FRAME, more={"numbers": np.arange(3), "nothing": None, "frame": FRAME})
    saved = read_r(path, lambda saved: saved)
    for frame in (saved["frame"], saved["more"]["frame"]):
        texts = [frame[name].texts() for name in (*FRAME, "row.names")]
        assert texts == [["B", "", "T"], ["1.5", "2", "3"], ["x", "", "ñ"], ["c1", "c2", "c3"]]
    assert saved["more"]["numbers"].texts() == ["0", "1", "2"]
    assert saved["more"]["nothing"].value is None


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_a_sparse_matrix_comes_back(save_r, data):
    rows, columns = data.draw(st.lists(NAMES, min_size=1)), data.draw(st.lists(NAMES, min_size=1))
    values = np.array(data.draw(st.lists(st.integers(0, 3), min_size=(n := len(rows) * len(columns)), max_size=n)))
    values = values.reshape(len(rows), len(columns))
    path = save_r("matrix.rda", matrix=SparseWithNames(values, rows, columns))
    found, *names = read_r(path, lambda saved: saved["matrix"].matrix())
    assert found.toarray().tolist() == values.tolist()
    assert names == [rows, columns]


TEXTS = np.array(["a", "b"], dtype=object)


def made(writer, name, state):
    """Write a vector as R 3.5 and later do where they tell how to make it."""
    writer.integers(238, 2)
    writer.symbol(name)
    writer.integers(254)
    writer.item(state)
    writer.integers(254)


@pytest.mark.parametrize(
    ("write", "found"),
    [
        (lambda writer: writer.item(np.arange(4.0), dim=np.array([2, 2]), dimnames=[TEXTS, TEXTS]), [[0, 2], [1, 3]]),
        (lambda writer: made(writer, "compact_intseq", np.array([3.0, 5.0, 1.0])), ["5", "6", "7"]),
        (lambda writer: made(writer, "wrap_string", [TEXTS, np.array([0, 0])]), ["a", "b"]),
        (lambda writer: made(writer, "deferred_string", {"of": np.arange(2)}), ["0", "1"]),
    ],
)
def test_a_plain_matrix_and_vectors_that_r_tells_how_to_make(tmp_path, write, found):
    writer = RWriter(3)
    writer.integers(2 | 1 << 10)
    writer.symbol("v")
    write(writer)
    writer.integers(254)
    (tmp_path / "v.rda").write_bytes(writer.content)
    saved = read_r(tmp_path / "v.rda", lambda saved: saved["v"])
    assert found == (saved.matrix()[0].toarray().tolist() if "dim" in saved.attributes else saved.texts())


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b"RDA" + b[3:], lambda b: b"", lambda b: b[:30]])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_damaged_file_is_refused(save_r, pack, damage):
    path = save_r("a.rda", pack, frame=FRAME)
    with refused("not-as-published"):
        read_r(path, lambda saved: saved["other"])
    path.write_bytes(damage(path.read_bytes()))
    with refused("not-as-published"):
        read_r(path, lambda saved: saved["frame"])


LINES = ["H838", "H1975", "H2228", "A549", "HCC827"] * 4
LINE_CELLS = [f"Lib90_{number:05}" for number in range(len(LINES))]


@pytest.mark.parametrize("scale", [0.7, 1])
def test_a_line_answers_as_its_ic50_says_under_one_drug_a_cell(save_r, scale):
    """SuperCell has a list of genes by cells, and a vector of the lines."""
    expression = SparseWithNames(counts(len(LINES), 6).T * scale, [f"G{number}" for number in range(6)], LINE_CELLS)
    path = save_r("cell_lines.rda", cell_lines={"GE": expression, "meta": np.array(LINES, dtype=object)})
    adata = load("lung_lines_10x", {path.name: path})
    kept = [place for place, line in enumerate(LINES) if line != "H2228"]
    assert adata.obs_names.tolist() == [LINE_CELLS[place] for place in kept]
    assert np.allclose(adata.X.toarray(), counts(len(LINES), 6)[kept] * scale)
    assert adata.uns == {"counts": scale == 1, "drops": {NOT_SCREENED: 4}}
    sensitive = {("HCC827", "gefitinib"), ("HCC827", "afatinib"), ("H1975", "afatinib")}
    both = [(line, drug) for drug, measured in IC50.items() for line in measured]
    answers = {(*one, "Sensitive" if one in sensitive else "Resistant"): 2 for one in both}
    assert Counter(adata.obs[["cell_line", "drug", "sensitivity"]].itertuples(index=False, name=None)) == answers


def test_cells_get_their_types_by_name(save_r):
    """clustifyrdata has genes by cells, and what is known of the cells."""
    kinds, genes = sorted(DATASETS["pbmc_10x3k"].coarse_types), ["CD3E", "CD19", "NKG7", "LYZ"]
    cells = [f"AAAC{number}" for number in range(len(kinds))]
    values = counts(len(cells), len(genes))

    def written(rows):
        meta = pd.DataFrame({"nCount_RNA": 1.0, "classified": pd.Categorical(kinds)}, index=rows)
        paths = (
            save_r("pbmc_matrix.rda", lzma.compress, pbmc_matrix=SparseWithNames(values.T, genes, cells)),
            save_r("pbmc_meta.rda", lzma.compress, 3, pbmc_meta=meta.iloc[::-1]),
        )
        return {path.name: path for path in paths}

    adata = load("pbmc_10x3k", written(cells))
    assert adata.X.toarray().tolist() == values.tolist()
    assert dict(zip(adata.obs_names, adata.obs["cell_type"], strict=True)) == dict(zip(cells, kinds, strict=True))
    assert (adata.var_names.tolist(), adata.uns["drops"]) == (genes, {})
    adata = load("pbmc_10x3k", written([*cells[:-2], "X1", "X2"]))
    assert adata.uns["drops"] == {"cell without a label": 2}
    refuse("pbmc_10x3k", written([f"X{number}" for number in range(len(cells))]))


@pytest.mark.parametrize("scale", [1, 0.3])
def test_both_parts_are_read_with_symbols_and_sorted_types_and_a_ready_file_gives_the_same(save_r, tmp_path, scale):
    """fastTopics has a list: eight cells in one part and two in the other."""
    kinds, genes = sorted(DATASETS["pbmc_zheng2017_facs"].coarse_types), [f"G{number}" for number in range(7)]
    cells = [f"AAAC{number:02}-1-{kind}" for number, kind in enumerate(kinds)]
    values = counts(10, 7) * scale

    def written(test_genes):
        parts = {}
        for end, some, own in (("", slice(8), genes), ("_test", slice(8, 10), test_genes)):
            parts[f"counts{end}"] = SparseWithNames(values[some], cells[some], [f"ENSG{gene}" for gene in own])
            labels = pd.Categorical(kinds[some], categories=kinds)
            parts[f"samples{end}"] = pd.DataFrame({"barcode": "AAAC", "celltype": labels}, index=cells[some])
        of_genes = pd.DataFrame({"ensembl": [f"ENSG{gene}" for gene in genes], "symbol": genes}, index=genes)
        fit = {"L": np.ones(3), "progress": pd.DataFrame({"loglik": [0.5]}, index=["1"])}
        content = {**parts, "genes": of_genes, **fit}
        return {"pbmc_facs.RData": save_r("pbmc_facs.RData", bz2.compress, pbmc_facs=content)}

    ready = toy_cells(tmp_path / "a.h5ad", scipy.sparse.csr_matrix(values), genes=genes, cells=cells, celltype=kinds)
    for files in (written(genes), {"pbmc_zheng2017_facs.h5ad": ready}):
        adata = load("pbmc_zheng2017_facs", files)
        assert np.allclose(adata.X.toarray(), values)
        assert (adata.obs_names.tolist(), adata.var_names.tolist()) == (cells, genes)
        assert adata.obs["cell_type"].tolist() == kinds
        assert adata.uns["counts"] == (scale == 1)
    refuse("pbmc_zheng2017_facs", written(genes[::-1]))
