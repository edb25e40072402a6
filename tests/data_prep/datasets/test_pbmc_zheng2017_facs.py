from __future__ import annotations

import bz2

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from data_prep.registry import find_dataset
from tests.refused import refused

NAME = "pbmc_zheng2017_facs"
KINDS = sorted(find_dataset(NAME).coarse_types)
GENES = [f"G{number}" for number in range(7)]
CELLS = [f"AAAC{number:02}-1-{kind}" for number, kind in enumerate(KINDS)]


@pytest.fixture
def write(counts, sparse, save_r):
    """Return a function that writes the list that fastTopics has, eight cells in one part and two in the other."""

    def make(test_genes=GENES):
        parts = {}
        for end, some, genes in (("", slice(8), GENES), ("_test", slice(8, 10), test_genes)):
            ensembl = [f"ENSG{gene}" for gene in genes]
            parts[f"counts{end}"] = sparse(counts(10, 7)[some], CELLS[some], ensembl)
            kinds = pd.Categorical(KINDS[some], categories=KINDS)
            parts[f"samples{end}"] = pd.DataFrame({"barcode": "AAAC", "celltype": kinds}, index=CELLS[some])
        genes = pd.DataFrame({"ensembl": [f"ENSG{gene}" for gene in GENES], "symbol": GENES}, index=GENES)
        fit = {"L": np.ones(3), "progress": pd.DataFrame({"loglik": [0.5]}, index=["1"])}
        return {"pbmc_facs.RData": save_r("pbmc_facs.RData", bz2.compress, pbmc_facs={**parts, "genes": genes, **fit})}

    return make


def test_both_parts_are_read_with_symbols_and_sorted_types(load, write, counts):
    adata = load(NAME, write())
    assert adata.X.toarray().tolist() == counts(10, 7).tolist()
    assert adata.obs_names.tolist() == CELLS
    assert adata.var_names.tolist() == GENES
    assert adata.obs["cell_type"].tolist() == KINDS
    assert adata.uns["counts"]


def test_parts_of_other_genes_are_refused(load, write):
    with refused("not-as-published"):
        load(NAME, write(GENES[::-1]))


@pytest.mark.parametrize("scale", [1, 0.3])
def test_a_ready_file_gives_the_same(load, write, counts, tmp_path, scale):
    obs = pd.DataFrame({"celltype": pd.Categorical(KINDS), "subpop": "x"}, index=CELLS)
    values = scipy.sparse.csr_matrix(counts(10, 7) * scale)
    anndata.AnnData(values, obs=obs, var=pd.DataFrame(index=GENES)).write_h5ad(tmp_path / "a.h5ad")
    ready, published = load(NAME, {f"{NAME}.h5ad": tmp_path / "a.h5ad"}), load(NAME, write())
    assert ready.obs.equals(published.obs)
    assert ready.uns["counts"] == (scale == 1)
    assert np.allclose(ready.X.toarray(), published.X.toarray() * scale)
