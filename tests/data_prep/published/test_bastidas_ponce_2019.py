from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

CLUSTERS = ["Fev+ Alpha"] * 11 + ["Alpha"] * 10 + ["Ngn3 High late"] * 20 + ["Ngn3 low EP"] * 21 + ["Ductal"] * 19
NAME = "GSE132188_adata.h5ad.h5"


@pytest.fixture
def write(tmp_path, counts):
    def make(counts_in: str = "raw", clusters: list[str] = CLUSTERS):
        values = counts(len(clusters)).astype(np.float32)
        names = [f"Gene{number}" for number in range(229)] + ["mt-Nd1"]
        values[:, -1] = 3
        values[0, -1] = 500
        obs = pd.DataFrame(
            {"clusters_fig6_broad_final": pd.Categorical(clusters), "day": "15.5"},
            index=[f"c{number}" for number in range(len(clusters))],
        )
        whole = scipy.sparse.csr_matrix(values)
        adata = anndata.AnnData(
            X=whole if counts_in != "nowhere" else whole.log1p(), obs=obs, var=pd.DataFrame(index=names)
        )
        if counts_in == "raw":
            adata.raw = adata.copy()
            adata.X = whole.log1p()
        adata.write_h5ad(tmp_path / NAME)
        return {NAME: tmp_path / NAME}

    return make


@pytest.mark.parametrize("counts_in", ["raw", "X"])
def test_type_is_the_last_word_except_for_ngn3(load, write, counts_in):
    adata = load("bastidas_ponce_2019", write(counts_in))
    assert adata.obs["cell_type"].value_counts().to_dict() == {"Ngn3 low EP": 21, "Alpha": 20, "Ngn3 High late": 20}
    assert adata.uns["expression"] == "counts"
    assert adata.uns["drops"] == {
        "cell with 5 % mitochondrial counts or more": 1,
        "cell of a type with fewer than 20 cells": 19,
    }


def test_without_counts_it_says_that_the_values_are_log1p(load, write):
    assert load("bastidas_ponce_2019", write("nowhere")).uns["expression"] == "log1p"
