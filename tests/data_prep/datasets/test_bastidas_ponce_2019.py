from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

CLUSTERS = ["Fev+ Alpha"] * 11 + ["Alpha"] * 10 + ["Ngn3 High late"] * 20 + ["Ngn3 low EP"] * 21 + ["Ductal"] * 19
NAME = "GSE132188_adata.h5ad.h5"


@pytest.fixture
def write(tmp_path, counts, mouse_genes):
    """Return a function that writes mouse cells by cluster, one of them dying, with counts in one of two places."""

    def make(counts_in="raw"):
        values = counts(len(CLUSTERS)).astype(np.float32)
        values[:, -1] = 3
        values[0, -1] = 500
        cells = [f"c{number}" for number in range(len(CLUSTERS))]
        obs = pd.DataFrame({"clusters_fig6_broad_final": pd.Categorical(CLUSTERS)}, index=cells)
        var = pd.DataFrame(index=[*mouse_genes[:229], "mt-Nd1"])
        whole = scipy.sparse.csr_matrix(values)
        adata = anndata.AnnData(X=whole if counts_in == "X" else whole.log1p(), obs=obs, var=var)
        if counts_in == "raw":
            adata.raw = anndata.AnnData(X=whole, obs=obs, var=var)
        adata.write_h5ad(tmp_path / NAME)
        return {NAME: tmp_path / NAME}

    return make


@pytest.mark.parametrize("counts_in", ["raw", "X", "nowhere"])
def test_type_is_the_last_word_except_for_ngn3_and_counts_are_found(load, write, tally, counts_in):
    adata = load("bastidas_ponce_2019", write(counts_in))
    assert adata.uns["counts"] == (counts_in != "nowhere")
    if counts_in != "nowhere":
        assert tally(adata) == {"Ngn3 low EP": 21, "Alpha": 20, "Ngn3 High late": 20}
        assert adata.uns["drops"] == {
            "cell with 5 % mitochondrial counts or more": 1,
            "cell of a type with fewer than 20 cells": 19,
        }
