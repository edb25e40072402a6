from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from data_prep.h5ad.matrices import StoredMatrix
from tests.refused import refused

NAME = "SrivatsanTrapnell2020_sciplex3.h5ad"
DRUGS = ["control"] * 10 + ["Dacinostat (LAQ824)"] * 8 + ["Trametinib"] * 7 + [None] * 3


@pytest.fixture
def write(tmp_path, counts):
    """Return a function that writes vehicle and drugs at two doses on three lines, two cells without a value."""

    def make(layout=scipy.sparse.csr_matrix, drugs=DRUGS):
        doses = [np.nan if drug in ("control", None) else (10.0, 10000.0)[n % 2] for n, drug in enumerate(drugs)]
        lines = pd.Categorical((["A549", "K562", "MCF7", "K562"] * len(drugs))[: len(drugs)])
        cells = [f"A01_{number}" for number in range(len(drugs))]
        columns = {"perturbation": pd.Categorical(drugs), "dose_value": doses, "cell_line": lines}
        obs = pd.DataFrame(columns, index=cells)
        obs.loc["A01_12", "cell_line"] = np.nan
        var = pd.DataFrame(index=[f"G{number}" for number in range(230)])
        anndata.AnnData(layout(counts(len(drugs)).astype(np.float32)), obs=obs, var=var).write_h5ad(tmp_path / NAME)
        return {NAME: tmp_path / NAME}

    return make


@pytest.mark.parametrize("layout", [scipy.sparse.csr_matrix, scipy.sparse.csc_matrix, np.asarray])
def test_control_is_the_vehicle_and_doses_are_nanomolar(load, write, tally, monkeypatch, counts, layout):
    monkeypatch.setattr(StoredMatrix.__init__, "__defaults__", (1000,))
    adata = load("sciplex3", write(layout))
    assert tally(adata, "perturbation") == {
        "control": 10,
        "drug Dacinostat (LAQ824) 10000 nM": 4,
        "drug Dacinostat (LAQ824) 10 nM": 3,
        "drug Trametinib 10 nM": 4,
        "drug Trametinib 10000 nM": 3,
    }
    assert adata.uns["drops"] == {"cell without a label": 4}
    assert adata["A01_13", "G5"].X.toarray().item() == counts(len(DRUGS))[13, 5]
    assert set(adata.obs.loc[adata.obs["perturbation"] == "control", "dose"]) == {""}


def test_file_without_perturbations_is_refused(load, tmp_path):
    anndata.AnnData(X=np.ones((3, 2), dtype=np.float32)).write_h5ad(tmp_path / NAME)
    with refused("not-as-published"):
        load("sciplex3", {NAME: tmp_path / NAME})
