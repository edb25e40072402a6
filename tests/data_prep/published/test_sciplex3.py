from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from cellduality_plugin.errors import CellDualityError
from data_prep.published import h5
from data_prep.registry import find_dataset

NAME = "SrivatsanTrapnell2020_sciplex3.h5ad"
DRUGS = ["control"] * 10 + ["Dacinostat (LAQ824)"] * 8 + ["Trametinib"] * 7 + [None] * 3


@pytest.fixture
def write(tmp_path, counts):
    def make(layout=scipy.sparse.csr_matrix):
        obs = pd.DataFrame(
            {
                "perturbation": pd.Categorical(DRUGS),
                "dose_value": [
                    np.nan if drug in ("control", None) else (10.0, 10000.0)[n % 2] for n, drug in enumerate(DRUGS)
                ],
                "cell_line": pd.Categorical(["A549", "K562", "MCF7", "K562"] * 7),
            },
            index=[f"A01_{number}" for number in range(len(DRUGS))],
        )
        obs.loc["A01_12", "cell_line"] = np.nan
        values = counts(len(DRUGS)).astype(np.float32)
        anndata.AnnData(
            X=layout(values), obs=obs, var=pd.DataFrame(index=[f"G{number}" for number in range(230)])
        ).write_h5ad(tmp_path / NAME)
        return {NAME: tmp_path / NAME}

    return make


@pytest.mark.parametrize("layout", [scipy.sparse.csr_matrix, scipy.sparse.csc_matrix, np.asarray])
@pytest.mark.parametrize("block", [4, 4096])
def test_control_is_the_vehicle_and_doses_are_nanomolar(load, write, monkeypatch, counts, layout, block):
    monkeypatch.setattr(h5, "BLOCK_ROWS", block)
    adata = load("sciplex3", write(layout))
    assert adata.obs["perturbation"].value_counts().to_dict() == {
        "control": 10,
        "drug Dacinostat (LAQ824) 10000 nM": 4,
        "drug Dacinostat (LAQ824) 10 nM": 3,
        "drug Trametinib 10 nM": 4,
        "drug Trametinib 10000 nM": 3,
    }
    assert adata.uns["drops"] == {"cell without a label": 4}
    assert adata["A01_13", "G5"].X.toarray().item() == counts(len(DRUGS))[13, 5]
    assert set(adata.obs.loc[adata.obs["perturbation"] == "control", "dose"]) == {""}


def test_held_out_drugs_are_found_under_their_published_names(load, write):
    adata, split = load("sciplex3", write()), find_dataset("sciplex3").split
    held_out = {drug for drug in adata.obs[split.column] if split.holds_out(drug)}
    assert held_out == {"Dacinostat (LAQ824)", "Trametinib"}
    assert len(split.held_out) == 9


def test_file_without_perturbations_is_refused(load, tmp_path):
    anndata.AnnData(X=np.ones((3, 2), dtype=np.float32)).write_h5ad(tmp_path / NAME)
    with pytest.raises(CellDualityError, match="no column 'perturbation' in obs"):
        load("sciplex3", {NAME: tmp_path / NAME})
