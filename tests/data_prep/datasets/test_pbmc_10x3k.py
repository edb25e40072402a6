from __future__ import annotations

import lzma

import pandas as pd
import pytest

from data_prep.registry import find_dataset
from tests.refused import refused

NAME = "pbmc_10x3k"
KINDS = sorted(find_dataset(NAME).coarse_types)
CELLS = [f"AAAC{number}" for number in range(len(KINDS))]
GENES = ["CD3E", "CD19", "NKG7", "LYZ"]


@pytest.fixture
def write(counts, sparse, save_r):
    """Return a function that writes the two files of clustifyrdata: genes by cells, and what is known of the cells."""

    def make(rows=CELLS):
        values = counts(len(CELLS), len(GENES))
        meta = pd.DataFrame({"nCount_RNA": 1.0, "classified": pd.Categorical(KINDS)}, index=rows)
        return {
            "pbmc_matrix.rda": save_r("pbmc_matrix.rda", lzma.compress, pbmc_matrix=sparse(values.T, GENES, CELLS)),
            "pbmc_meta.rda": save_r("pbmc_meta.rda", lzma.compress, 3, pbmc_meta=meta.iloc[::-1]),
        }

    return make


def test_cells_get_their_types_by_name(load, write, counts):
    adata = load(NAME, write())
    assert adata.X.toarray().tolist() == counts(len(CELLS), len(GENES)).tolist()
    assert dict(zip(adata.obs_names, adata.obs["cell_type"], strict=True)) == dict(zip(CELLS, KINDS, strict=True))
    assert adata.var_names.tolist() == GENES
    assert adata.uns["drops"] == {}


def test_cells_without_a_type_are_left_out_and_files_that_do_not_fit_are_refused(load, write):
    adata = load(NAME, write([*CELLS[:-2], "X1", "X2"]))
    assert adata.uns["drops"] == {"cell without a label": 2}
    with refused("not-as-published"):
        load(NAME, write([f"X{number}" for number in range(len(CELLS))]))
