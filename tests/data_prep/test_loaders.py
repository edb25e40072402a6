from __future__ import annotations

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from cellduality_plugin.errors import CellDualityError
from data_prep.loaders import MISSING_LABEL, load_h5ad
from data_prep.sources import SOURCES


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
