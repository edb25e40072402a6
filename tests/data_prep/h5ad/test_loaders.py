from __future__ import annotations

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from cellduality_plugin.errors import CellDualityError
from data_prep.cells import rank_cells
from data_prep.h5ad import matrices
from data_prep.h5ad.genes import NO_ORTHOLOGUE, SEVERAL_ORTHOLOGUES, human_symbols, mouse_symbols
from data_prep.h5ad.loaders import MISSING_LABEL, SHARED_SYMBOL, load_h5ad
from data_prep.h5ad.matrices import StoredMatrix
from data_prep.sources import SOURCES

FORMS = {"dense": np.asarray, "csr": scipy.sparse.csr_matrix, "csc": scipy.sparse.csc_matrix}


def counts() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 60, size=(24, 12)).astype(np.float32)


def log1p_per_10k(raw: np.ndarray) -> np.ndarray:
    return np.log1p(raw.astype(float) / raw.astype(float).sum(axis=1, keepdims=True) * 10_000)


def read(loaded) -> np.ndarray:
    return scipy.sparse.vstack(list(loaded.blocks())).toarray()


@pytest.fixture
def refused(check_told):
    """Return a function that checks what is said of a file that is not read."""

    def check(what: str, hint: str, path, column: str = "kind", **wanted) -> CellDualityError:
        with pytest.raises(CellDualityError) as raised:
            list(load_h5ad(path, column, **wanted).blocks())
        check_told(raised, what, hint)
        assert str(path) in raised.value.where
        return raised.value

    return check


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few values, as a file larger than memory has them."""
    monkeypatch.setattr(matrices.StoredMatrix.__init__, "__defaults__", (30,))
    monkeypatch.setattr(matrices, "CSC_BLOCK", 4 * matrices.BLOCK)


def test_embedded_set_is_read_from_its_raw_matrix_and_its_scaled_one_refused(refused):
    source = SOURCES["pbmc68k_reduced"]
    loaded = load_h5ad(source.path(), source.label_column, expression=source.expression, matrix=source.matrix)
    assert loaded.adata.shape == (700, 765)
    assert loaded.adata.obs["cell_type"].nunique() == 10
    assert loaded.drops == {}
    assert loaded.adata.X.data.min() > 0
    refused("negative", "--matrix raw", source.path(), "bulk_labels")


@pytest.mark.parametrize("expression", ["auto", "counts"])
@pytest.mark.parametrize("form", FORMS)
def test_counts_become_log1p_of_ten_thousand(write_h5ad, expression, form):
    raw = counts()
    loaded = load_h5ad(write_h5ad(FORMS[form](raw)), "kind", expression=expression)
    np.testing.assert_allclose(loaded.adata.X.toarray(), log1p_per_10k(raw), rtol=1e-12)


@pytest.mark.parametrize("expression", ["auto", "log1p"])
def test_log_values_stay_as_they_are(write_h5ad, expression):
    values = np.log1p(counts())
    loaded = load_h5ad(write_h5ad(values), "kind", expression=expression)
    np.testing.assert_array_equal(loaded.adata.X.toarray(), values)


def test_low_counts_and_empty_cells_are_taken(write_h5ad):
    low = np.minimum(counts(), 7)
    low[5] = 0
    assert load_h5ad(write_h5ad(low), "kind", expression="counts").adata.X[5].nnz == 0


def with_value(value: float) -> np.ndarray:
    values = np.log1p(counts())
    values[3, 4] = value
    return values


@pytest.mark.parametrize(
    ("matrix", "expression", "what"),
    [
        (np.zeros((0, 12), np.float32), "auto", "is empty: 0 cells x 12 genes"),
        (np.zeros((24, 0), np.float32), "auto", "is empty: 24 cells x 0 genes"),
        (np.zeros((24, 12), np.float32), "auto", "all zeros"),
        (with_value(np.nan), "auto", "1 values of the matrix are NaN or infinite"),
        (with_value(np.inf), "log1p", "1 values of the matrix are NaN or infinite"),
        (with_value(-0.5), "auto", "1 values of the matrix are negative"),
        (counts(), "log1p", "log1p values are declared, but the values are whole numbers"),
        (np.log1p(counts()), "counts", "counts are declared, but the values are fractions"),
        (counts() + 0.5, "log1p", "log1p values are declared, but the values are fractions up to 59.5"),
        (counts() + 0.5, "auto", "cannot tell counts from log1p values"),
        (np.minimum(counts(), 7), "auto", "cannot tell counts from log1p values"),
    ],
)
def test_bad_matrix_is_told(matrix, expression, what, write_h5ad, refused):
    refused(what, "", write_h5ad(matrix, labels=["B", "T"] * (len(matrix) // 2)), expression=expression)


@pytest.mark.parametrize(
    ("file", "what", "hint"),
    [
        ({"genes": ["G0", *(f"G{n}" for n in range(11))]}, "1 duplicate gene names (G0)", "var_names_make_unique"),
        ({"cells": ["c0", *(f"c{n}" for n in range(23))]}, "1 duplicate cell names (c0)", "obs_names_make_unique"),
        ({"labels": [" "] * 24}, "every label is missing", "--label-column"),
        ({"labels": ["B", "</answer>"] * 12}, "'</answer>' holds an angle bracket", ""),
    ],
)
def test_bad_names_and_labels_are_told(file, what, hint, write_h5ad, refused):
    refused(what, hint, write_h5ad(counts(), **file))


@pytest.mark.parametrize(
    ("wanted", "what", "hint"),
    [
        ({"column": "celltype"}, "no column 'celltype'", "kind"),
        ({"matrix": "raw"}, "no raw matrix", "--matrix X"),
        ({"layer": "other"}, "no layer 'other'", "cut, text"),
        ({"layer": "cut"}, "of another shape than obs and var", ""),
        ({"layer": "text"}, "does not hold numbers", ""),
        (
            {"columns": {"perturbation": "condition"}},
            "no column 'condition'",
            "--perturbation-column with one of: kind",
        ),
        ({"columns": {"drug": "drug"}}, "no cell has a value in all of kind, drug", ""),
        ({"species": "mouse"}, "no gene is left", "--species"),
    ],
)
def test_what_is_not_there_is_told(wanted, what, hint, write_h5ad, refused):
    drug = pd.Categorical([None, "x"] * 12)
    path = with_columns(write_h5ad(counts(), labels=["B", None] * 12), drug=drug)
    with h5py.File(path, "a") as file:
        file["layers/cut"] = counts()[:20]
        file["layers/text"] = np.full((24, 12), b"many")
    refused(what, hint, path, **wanted)


def test_missing_file_and_file_without_a_matrix_are_told(tmp_path, refused):
    refused("no such file", "", tmp_path / "gone.h5ad")
    path = tmp_path / "bare.h5ad"
    anndata.AnnData(obs=pd.DataFrame({"kind": ["B", "T"]}, index=["a", "b"]), shape=(2, 3)).write_h5ad(path)
    refused("the matrix X is missing", "", path)


@pytest.mark.parametrize("spoil", ["text", 0.3, 0.9, "other"])
def test_corrupt_file_is_told(spoil, write_h5ad, refused):
    path = write_h5ad(counts())
    if spoil == "text":
        path.write_text("not an .h5ad file")
    elif spoil == "other":
        with h5py.File(path, "w") as file:
            file["X"] = "no matrix"
            file["obs"] = [1, 2, 3]
    else:
        path.write_bytes(path.read_bytes()[: int(spoil * path.stat().st_size)])
    refused("unreadable .h5ad file", "download", path)


def test_a_gene_index_outside_of_the_matrix_is_told(write_h5ad, refused):
    path = write_h5ad(scipy.sparse.csr_matrix(counts()))
    with h5py.File(path, "a") as file:
        file["X/indices"][4] = 999
    refused("a gene index is outside of the matrix", "", path)


@pytest.mark.parametrize("form", [list, pd.Categorical])
def test_cells_without_a_label_are_left_out_of_every_block_and_counted(form, small_blocks, write_h5ad):
    labels = form([None, " ", *["B"] * 10, *["T\tcell"] * 12])
    loaded = load_h5ad(write_h5ad(counts(), labels=labels), "kind")
    assert loaded.drops == {MISSING_LABEL: 2}
    assert list(loaded.obs["cell_type"]) == ["B"] * 10 + ["T cell"] * 12
    assert list(loaded.obs.index) == [f"cell{number:02}" for number in range(2, 24)]
    np.testing.assert_array_equal(read(loaded), counts()[2:])


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64", "int32", "uint16", "uint8"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", ["X", "raw", "layer"])
def test_every_layout_type_and_place_is_read_in_blocks(place, form, dtype, small_blocks, write_h5ad):
    raw = counts().astype(dtype)
    path = write_h5ad(counts())
    adata = anndata.read_h5ad(path)
    values = raw if form == "dense" else FORMS[form](raw if dtype != "float16" else raw.astype("float32"))
    if place == "X":
        adata.X = values
    elif place == "layer":
        adata.layers["spliced"] = values
    else:
        adata.raw = anndata.AnnData(X=values, obs=adata.obs, var=adata.var)
    adata.write_h5ad(path)
    where = {"X": {}, "raw": {"matrix": "raw"}, "layer": {"layer": "spliced"}}[place]
    loaded = load_h5ad(path, "kind", **where)
    assert len(list(loaded.blocks())) > 1
    assert loaded.stored.layout == form
    np.testing.assert_allclose(loaded.adata.X.toarray(), log1p_per_10k(raw), rtol=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("block", [1, 7, 30, 1000])
def test_blocks_put_together_are_the_matrix(form, block, write_h5ad, monkeypatch):
    monkeypatch.setattr(matrices, "CSC_BLOCK", 2 * matrices.BLOCK)
    raw = counts()
    raw[3] = 0
    raw[:, 5] = 0
    stored = StoredMatrix(write_h5ad(FORMS[form](raw)), "X", form, raw.shape, block)
    keep, columns = np.arange(24) % 3 > 0, np.array([1, 5, 11])
    np.testing.assert_array_equal(stored.read().toarray(), raw)
    np.testing.assert_array_equal(stored.read(keep, columns).toarray(), raw[keep][:, columns])
    assert sum(values.astype(float).sum() for values in stored.values()) == raw.sum()


def test_chunked_and_compressed_files_are_read(write_h5ad, small_blocks):
    path = write_h5ad(counts())
    with h5py.File(path, "a") as file:
        del file["X"]
        file.create_dataset("X", data=counts(), chunks=(5, 4), compression="gzip")
        file["X"].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    np.testing.assert_array_equal(read(load_h5ad(path, "kind")), counts())


def test_duplicate_entries_of_a_sparse_row_are_summed(write_h5ad):
    path = write_h5ad(scipy.sparse.csr_matrix(counts()))
    with h5py.File(path, "a") as file:
        file["X/indices"][0] = file["X/indices"][1]
    block = next(load_h5ad(path, "kind").blocks())
    assert block.has_canonical_format
    assert block[0].sum() == counts()[0].sum()


def with_columns(path, **columns):
    """Add columns to obs."""
    adata = anndata.read_h5ad(path)
    for name, values in columns.items():
        adata.obs[name] = values
    adata.write_h5ad(path)
    return path


def test_further_columns_get_their_standard_names(write_h5ad):
    condition = pd.Categorical(["ctrl", "IFN  beta", None] * 8)
    path = with_columns(write_h5ad(counts(), labels=[None, *["B"] * 23]), condition=condition)
    loaded = load_h5ad(path, "kind", columns={"perturbation": "condition"})
    assert list(loaded.obs) == ["cell_type", "perturbation"]
    assert set(loaded.obs["perturbation"]) == {"ctrl", "IFN beta"}
    assert loaded.drops == {MISSING_LABEL: 1, "cell without a perturbation": 8}
    cell = rank_cells(loaded, source="toy", top=5, min_genes=2).cell(0)
    assert (cell.id, cell.obs) == ("toy/cell01", {"cell_type": "B", "perturbation": "IFN beta"})


HUMAN = sorted(human_symbols() - mouse_symbols())[::700]
MOUSE = ["Cd3e", "Cd19", "Trp53", "Ptprc", "Ccl4", "Gzmb", "Gm10001", "Egfr", "Tnf", "Il6", "Ifng", "Cd4"]


def with_ids(path, symbols):
    """Give the genes Ensembl ids for names, and columns of symbols and of other things."""
    adata = anndata.read_h5ad(path)
    adata.var = adata.var.assign(feature_name=symbols, biotype="protein_coding", length=1000)
    adata.var_names = [f"ENSG{number:011}" for number in range(12)]
    adata.write_h5ad(path)
    return path


def test_symbols_come_from_a_column_and_those_that_are_shared_are_left_out(write_h5ad, refused):
    symbols = pd.Categorical([*HUMAN[:8], None, "", "TWIN", "TWIN"])
    path = with_ids(write_h5ad(counts()), symbols)
    loaded = load_h5ad(path, "kind", gene_symbols="feature_name")
    assert loaded.genes == tuple(HUMAN[:8])
    assert loaded.drops == {SHARED_SYMBOL: 4}
    np.testing.assert_array_equal(read(loaded), counts()[:, :8])
    refused("12 of 12 gene names are Ensembl ids", "--gene-symbols with one of: feature_name", path)
    refused("no column 'name'", "feature_name", path, gene_symbols="name")


def test_mouse_genes_become_human_where_they_are_declared(write_h5ad, refused):
    loaded = load_h5ad(write_h5ad(counts(), genes=MOUSE), "kind", species="mouse")
    assert loaded.genes == ("CD3E", "CD19", "TP53", "PTPRC", "EGFR", "TNF", "IL6", "IFNG", "CD4")
    assert loaded.drops == {SEVERAL_ORTHOLOGUES: 2, NO_ORTHOLOGUE: 1}
    kept = [place for place, name in enumerate(MOUSE) if name not in ("Ccl4", "Gzmb", "Gm10001")]
    np.testing.assert_array_equal(read(loaded), counts()[:, kept])
    assert load_h5ad(write_h5ad(counts(), genes=MOUSE), "kind").genes == tuple(MOUSE)
    mouse = sorted(mouse_symbols() - human_symbols())[::700]
    for genes, what in ((HUMAN[:25] + mouse[:15], "mixed species"), (mouse[:28] + MOUSE, "human genes are declared")):
        refused(what, "", write_h5ad(np.tile(counts(), 4)[:, :40], genes=genes), species="human")
