from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from tests.refused import refused

KINDS = ["classical monocyte"] * 25 + ["naive B cell"] * 20 + ["mast cell"] * 5


@pytest.fixture
def write(tmp_path, counts):
    """As CELLxGENE stores it: normalised values in X, counts in raw, Ensembl ids as index, symbols beside."""

    def make(change=None, kinds=KINDS):
        values = scipy.sparse.csr_matrix(counts(len(KINDS), 233).astype(np.float32))
        ids = [f"ENSG{number:011}" for number in range(233)]
        symbols = [f"G{number}" for number in range(230)] + ["G0", "G1", ids[232]]
        obs = {"cell_type": kinds, "tissue": ["spleen", "liver"] * 25, "donor_id": ["A29", "A31"] * 25}
        frame = pd.DataFrame(
            {name: pd.Categorical(column) for name, column in obs.items()},
            index=[f"cell{number}" for number in range(len(KINDS))],
        )
        var = pd.DataFrame({"feature_name": pd.Categorical(symbols)}, index=ids)
        if change is None:
            adata = anndata.AnnData(X=values.log1p(), obs=frame, var=var)
            adata.raw = anndata.AnnData(X=values, obs=frame, var=var)
        else:
            adata = anndata.AnnData(X=change(values), obs=frame, var=var)
        adata.write_h5ad(tmp_path / "global.h5ad")
        return {"global.h5ad": tmp_path / "global.h5ad"}

    return make


def test_counts_come_from_raw_under_symbols(load, write, counts, tally):
    adata = load("human_immune", write())
    assert tally(adata) == {"classical monocyte": 25, "naive B cell": 20}
    assert adata.uns["counts"]
    assert adata["cell7", "G5"].X.toarray().item() == counts(len(KINDS), 233)[7, 5]
    assert adata.n_vars == 230
    assert adata.uns["drops"] == {
        "gene without a symbol": 1,
        "gene whose name came before": 2,
        "cell of a type with fewer than 20 cells": 5,
    }
    assert set(adata.obs["tissue"]) == {"spleen", "liver"}
    assert set(adata.obs["donor"]) == {"A29", "A31"}


def test_categorical_labels_with_nan_are_left_out_and_counted(load, write):
    adata = load("human_immune", write(kinds=[*KINDS[:3], None, *KINDS[4:]]))
    assert adata.uns["drops"]["cell without a label"] == 1
    assert "nan" not in set(adata.obs["cell_type"])


def test_scaled_values_and_other_files_are_refused(load, write):
    files = write(lambda values: values.toarray() - 1)
    with refused("not-as-published"):
        load("human_immune", files)
    files["global.h5ad"].write_bytes(b"<html>not found</html>")
    with refused("unreadable-file"):
        load("human_immune", files)


def test_zeros_that_are_stored_do_not_count_as_expressed(load, write):
    def with_zeros(values):
        values.data[:60] = 0
        return values

    assert load("human_immune", write(with_zeros)).uns["drops"]["cell with fewer than 200 genes"] == 1
