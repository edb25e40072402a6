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
from data_prep.h5ad.loaders import MISSING_LABEL, SHARED_SYMBOL, load_h5ad
from data_prep.h5ad.matrices import StoredMatrix
from data_prep.h5ad.orthologues import NO_ORTHOLOGUE, SEVERAL_ORTHOLOGUES, human_symbols, mouse_symbols
from data_prep.sources import SOURCES

FORMS = {
    "dense": np.asarray,
    "csr": scipy.sparse.csr_matrix,
    "csc": scipy.sparse.csc_matrix,
}


def counts() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 60, size=(24, 12)).astype(np.float32)


def with_value(value: float) -> np.ndarray:
    values = np.log1p(counts())
    values[3, 4] = value
    return values


def test_embedded_set_is_read_from_its_raw_matrix():
    source = SOURCES["pbmc68k_reduced"]
    loaded = load_h5ad(source.path(), source.label_column, expression=source.expression, matrix=source.matrix)
    assert loaded.adata.shape == (700, 765)
    assert loaded.adata.obs["cell_type"].nunique() == 10
    assert loaded.drops == {}
    assert loaded.adata.X.data.min() > 0


def test_scaled_matrix_of_the_embedded_set_is_refused(check_told):
    with pytest.raises(CellDualityError) as raised:
        load_h5ad(SOURCES["pbmc68k_reduced"].path(), "bulk_labels")
    check_told(raised, "negative", "--matrix raw")


@pytest.mark.parametrize("expression", ["auto", "counts"])
@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_matrix, scipy.sparse.csc_matrix])
def test_counts_become_log1p_of_ten_thousand(write_h5ad, expression, form):
    raw = counts()
    loaded = load_h5ad(write_h5ad(form(raw)), "kind", expression=expression)
    expected = np.log1p(raw.astype(float) / raw.sum(axis=1, keepdims=True) * 10_000)
    np.testing.assert_allclose(loaded.adata.X.toarray(), expected, rtol=1e-12)


@pytest.mark.parametrize("expression", ["auto", "log1p"])
def test_log_values_stay_as_they_are(write_h5ad, expression):
    values = np.log1p(counts())
    loaded = load_h5ad(write_h5ad(values), "kind", expression=expression)
    np.testing.assert_array_equal(loaded.adata.X.toarray(), values)


def test_cell_without_counts_stays_empty(write_h5ad):
    raw = counts()
    raw[5] = 0
    assert load_h5ad(write_h5ad(raw), "kind").adata.X[5].nnz == 0


BAD_MATRICES = {
    "no cells": (np.zeros((0, 12), np.float32), "auto", "is empty: 0 cells x 12 genes"),
    "no genes": (np.zeros((24, 0), np.float32), "auto", "is empty: 24 cells x 0 genes"),
    "all zeros": (np.zeros((24, 12), np.float32), "auto", "all zeros"),
    "NaN": (with_value(np.nan), "auto", "1 values of the matrix are NaN or infinite"),
    "infinite": (with_value(np.inf), "log1p", "1 values of the matrix are NaN or infinite"),
    "negative": (with_value(-0.5), "auto", "1 values of the matrix are negative"),
    "counts declared as log1p": (
        counts(),
        "log1p",
        "log1p values are declared, but the values are whole numbers",
    ),
    "log1p declared as counts": (
        np.log1p(counts()),
        "counts",
        "counts are declared, but the values are fractions",
    ),
    "not yet log1p": (
        counts() + 0.5,
        "log1p",
        "log1p values are declared, but the values are fractions up to 59.5",
    ),
    "neither": (counts() + 0.5, "auto", "cannot tell counts from log1p values"),
    "either": (np.minimum(counts(), 7), "auto", "cannot tell counts from log1p values"),
}


@pytest.mark.parametrize("case", BAD_MATRICES)
def test_bad_matrix_is_told(case, write_h5ad, check_told):
    matrix, expression, what = BAD_MATRICES[case]
    path = write_h5ad(matrix, labels=["B", "T"] * (len(matrix) // 2))
    with pytest.raises(CellDualityError) as raised:
        load_h5ad(path, "kind", expression=expression)
    check_told(raised, what)
    assert str(path) in raised.value.where


def test_low_counts_are_taken_when_they_are_declared(write_h5ad):
    low = np.minimum(counts(), 7)
    assert load_h5ad(write_h5ad(low), "kind", expression="counts").adata.n_obs == 24


def test_duplicate_names_are_told(write_h5ad, check_told):
    with pytest.raises(CellDualityError) as raised:
        load_h5ad(write_h5ad(counts(), genes=["G0", *(f"G{n}" for n in range(11))]), "kind")
    check_told(raised, "1 duplicate gene names (G0)", "var_names_make_unique")
    with pytest.raises(CellDualityError) as raised:
        load_h5ad(write_h5ad(counts(), cells=["c0", *(f"c{n}" for n in range(23))]), "kind")
    check_told(raised, "1 duplicate cell names (c0)", "obs_names_make_unique")


def test_unknown_label_column_lists_the_known_ones(write_h5ad, check_told):
    with pytest.raises(CellDualityError) as raised:
        load_h5ad(write_h5ad(counts()), "celltype")
    check_told(raised, "no column 'celltype'", "kind")


@pytest.mark.parametrize("form", [list, pd.Categorical])
def test_cells_without_a_label_are_dropped_and_counted(write_h5ad, form):
    labels = form([None, " ", *["B"] * 10, *["T\tcell"] * 12])
    loaded = load_h5ad(write_h5ad(counts(), labels=labels), "kind")
    assert loaded.drops == {MISSING_LABEL: 2}
    assert list(loaded.adata.obs["cell_type"]) == ["B"] * 10 + ["T cell"] * 12
    assert loaded.adata.obs_names[0] == "cell02"


def test_column_without_any_label_or_with_a_tag_is_told(write_h5ad, check_told):
    with pytest.raises(CellDualityError) as raised:
        load_h5ad(write_h5ad(counts(), labels=[" "] * 24), "kind")
    check_told(raised, "every label is missing", "--label-column")
    with pytest.raises(CellDualityError) as raised:
        load_h5ad(write_h5ad(counts(), labels=["B", "</answer>"] * 12), "kind")
    check_told(raised, "'</answer>' holds an angle bracket")


def test_missing_file_and_missing_raw_are_told(write_h5ad, tmp_path, check_told):
    with pytest.raises(CellDualityError) as raised:
        load_h5ad(tmp_path / "gone.h5ad", "kind")
    check_told(raised, "no such file")
    with pytest.raises(CellDualityError) as raised:
        load_h5ad(write_h5ad(counts()), "kind", matrix="raw")
    check_told(raised, "no raw matrix", "--matrix X")


def test_file_without_a_matrix_is_told(tmp_path, check_told):
    path = tmp_path / "bare.h5ad"
    anndata.AnnData(obs=pd.DataFrame({"kind": ["B", "T"]}, index=["a", "b"]), shape=(2, 3)).write_h5ad(path)
    with pytest.raises(CellDualityError) as raised:
        load_h5ad(path, "kind")
    check_told(raised, "the matrix X is missing")


@pytest.mark.parametrize("spoil", ["text", "cut", "other"])
def test_corrupt_file_is_told(spoil, write_h5ad, check_told):
    path = write_h5ad(counts())
    if spoil == "text":
        path.write_text("not an .h5ad file")
    elif spoil == "cut":
        path.write_bytes(path.read_bytes()[:3000])
    else:
        with h5py.File(path, "w") as file:
            file["X"] = "no matrix"
            file["obs"] = [1, 2, 3]
    with pytest.raises(CellDualityError) as raised:
        load_h5ad(path, "kind")
    check_told(raised, "unreadable .h5ad file")


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few values, as a file larger than memory has them."""
    monkeypatch.setattr(matrices.StoredMatrix.__init__, "__defaults__", (30,))
    monkeypatch.setattr(matrices, "CSC_BLOCK", 4 * matrices.BLOCK)


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
    expected = np.log1p(raw.astype(float) / raw.astype(float).sum(axis=1, keepdims=True) * 10_000)
    np.testing.assert_allclose(loaded.adata.X.toarray(), expected, rtol=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("block", [1, 7, 30, 1000])
def test_blocks_put_together_are_the_matrix(form, block, write_h5ad, monkeypatch):
    monkeypatch.setattr(matrices, "CSC_BLOCK", 2 * matrices.BLOCK)
    raw = counts()
    raw[3] = 0
    raw[:, 5] = 0
    path = write_h5ad(FORMS[form](raw))
    stored = StoredMatrix(path, "X", form, raw.shape, block)
    np.testing.assert_array_equal(scipy.sparse.vstack(list(stored.rows())).toarray(), raw)
    assert sum(values.astype(float).sum() for values in stored.values()) == raw.sum()


def test_cells_without_a_label_are_left_out_of_every_block(small_blocks, write_h5ad):
    labels = ["B", None] * 12
    loaded = load_h5ad(write_h5ad(counts(), labels=labels), "kind")
    np.testing.assert_array_equal(scipy.sparse.vstack(list(loaded.blocks())).toarray(), counts()[::2])
    assert list(loaded.obs.index) == [f"cell{number:02}" for number in range(0, 24, 2)]


def test_chunked_and_compressed_files_are_read(write_h5ad, small_blocks):
    path = write_h5ad(counts())
    with h5py.File(path, "a") as file:
        del file["X"]
        file.create_dataset("X", data=counts(), chunks=(5, 4), compression="gzip")
        file["X"].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    np.testing.assert_array_equal(scipy.sparse.vstack(list(load_h5ad(path, "kind").blocks())).toarray(), counts())


def test_duplicate_entries_of_a_sparse_row_are_summed(write_h5ad):
    path = write_h5ad(scipy.sparse.csr_matrix(counts()))
    with h5py.File(path, "a") as file:
        file["X/indices"][0] = file["X/indices"][1]
    block = next(load_h5ad(path, "kind").blocks())
    assert block.has_canonical_format
    assert block[0].sum() == counts()[0].sum()


def test_a_gene_index_outside_of_the_matrix_is_told(write_h5ad, check_told):
    path = write_h5ad(scipy.sparse.csr_matrix(counts()))
    with h5py.File(path, "a") as file:
        file["X/indices"][4] = 999
    with pytest.raises(CellDualityError) as raised:
        list(load_h5ad(path, "kind").blocks())
    check_told(raised, "a gene index is outside of the matrix")


@pytest.mark.parametrize("part", [0.3, 0.9])
def test_truncated_file_is_told(part, write_h5ad, check_told):
    path = write_h5ad(counts())
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(CellDualityError) as raised:
        load_h5ad(path, "kind")
    check_told(raised, "unreadable .h5ad file", "download")


def test_unknown_layer_and_text_in_the_matrix_are_told(write_h5ad, check_told):
    path = write_h5ad(counts())
    with pytest.raises(CellDualityError) as raised:
        load_h5ad(path, "kind", layer="spliced")
    check_told(raised, "no layer 'spliced'", "there is none")
    with h5py.File(path, "a") as file:
        file["layers/ambiguous"] = counts()
        del file["X"]
        file["X"] = np.full((24, 12), b"many")
    with pytest.raises(CellDualityError) as raised:
        load_h5ad(path, "kind", layer="spliced")
    check_told(raised, "no layer 'spliced'", "ambiguous")
    with pytest.raises(CellDualityError) as raised:
        load_h5ad(path, "kind")
    check_told(raised, "does not hold numbers")


def test_matrix_of_another_shape_than_its_tables_is_told(write_h5ad, check_told):
    path = write_h5ad(counts())
    with h5py.File(path, "a") as file:
        file["layers/cut"] = counts()[:20]
    with pytest.raises(CellDualityError) as raised:
        load_h5ad(path, "kind", layer="cut")
    check_told(raised, "of another shape than obs and var")


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


def test_unknown_further_column_and_columns_that_exclude_each_other_are_told(write_h5ad, check_told):
    path = with_columns(write_h5ad(counts(), labels=["B", None] * 12), drug=pd.Categorical([None, "x"] * 12))
    with pytest.raises(CellDualityError) as raised:
        load_h5ad(path, "kind", columns={"perturbation": "condition"})
    check_told(raised, "no column 'condition'", "--perturbation-column with one of: kind, drug")
    with pytest.raises(CellDualityError) as raised:
        load_h5ad(path, "kind", columns={"drug": "drug"})
    check_told(raised, "no cell has a value in all of kind, drug")


HUMAN = sorted(human_symbols() - mouse_symbols())[::700]
MOUSE = ["Cd3e", "Cd19", "Trp53", "Ptprc", "Ccl4", "Gzmb", "Gm10001", "Egfr", "Tnf", "Il6", "Ifng", "Cd4"]
IDS = [f"ENSG{number:011}" for number in range(12)]


def with_ids(path, symbols):
    """Give the genes Ensembl ids for names, and columns of symbols and of other things."""
    adata = anndata.read_h5ad(path)
    adata.var["feature_name"] = symbols
    adata.var["biotype"] = "protein_coding"
    adata.var["length"] = 1000
    adata.var_names = IDS
    adata.write_h5ad(path)
    return path


def test_ids_for_names_are_told_with_the_columns_that_hold_symbols(write_h5ad, check_told):
    path = with_ids(write_h5ad(counts()), HUMAN[:12])
    with pytest.raises(CellDualityError) as raised:
        load_h5ad(path, "kind")
    check_told(raised, "12 of 12 gene names are Ensembl ids", "--gene-symbols with one of: feature_name")
    with pytest.raises(CellDualityError) as raised:
        load_h5ad(path, "kind", gene_symbols="name")
    check_told(raised, "no column 'name'", "feature_name")


def test_symbols_come_from_a_column_and_those_that_are_shared_are_left_out(write_h5ad):
    symbols = pd.Categorical([*HUMAN[:8], None, "", "TWIN", "TWIN"])
    loaded = load_h5ad(with_ids(write_h5ad(counts()), symbols), "kind", gene_symbols="feature_name")
    assert loaded.genes == tuple(HUMAN[:8])
    assert loaded.drops == {SHARED_SYMBOL: 4}
    np.testing.assert_array_equal(scipy.sparse.vstack(list(loaded.blocks())).toarray(), counts()[:, :8])


def test_mouse_genes_become_human_where_they_are_declared(write_h5ad):
    loaded = load_h5ad(write_h5ad(counts(), genes=MOUSE), "kind", species="mouse")
    assert loaded.genes == ("CD3E", "CD19", "TP53", "PTPRC", "EGFR", "TNF", "IL6", "IFNG", "CD4")
    assert loaded.species == "human"
    assert loaded.drops == {SEVERAL_ORTHOLOGUES: 2, NO_ORTHOLOGUE: 1}
    kept = [place for place, name in enumerate(MOUSE) if name not in ("Ccl4", "Gzmb", "Gm10001")]
    np.testing.assert_array_equal(next(loaded.blocks()).toarray(), counts()[:, kept])
    assert load_h5ad(write_h5ad(counts(), genes=MOUSE), "kind").genes == tuple(MOUSE)


def test_mouse_without_any_orthologue_is_told(write_h5ad, check_told):
    with pytest.raises(CellDualityError) as raised:
        load_h5ad(write_h5ad(counts()), "kind", species="mouse")
    check_told(raised, "no gene is left", "--species")


def test_other_species_than_declared_and_two_of_them_are_told(write_h5ad, check_told):
    wide = np.tile(counts(), 4)[:, :40]
    mouse = sorted(mouse_symbols() - human_symbols())[::700]
    for genes, what in ((HUMAN[:25] + mouse[:15], "mixed species"), (mouse[:28] + MOUSE, "human genes are declared")):
        with pytest.raises(CellDualityError) as raised:
            load_h5ad(write_h5ad(wide, genes=genes), "kind", species="human")
        check_told(raised, what)
