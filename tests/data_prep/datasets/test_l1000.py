from __future__ import annotations

import gzip

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest

from data_prep.h5ad.matrices import StoredMatrix
from tests.refused import refused

PREFIX = "GSE92742_Broad_LINCS_"
MATRIX = PREFIX + "Level3_INF_mlr12k_n1319138x12328.gctx"
TYPES = ["trt_cp"] * 5 + ["ctl_vehicle"] * 3 + ["trt_sh"] * 2 + ["trt_cp"] * 2
PROFILES = [f"CPC005_A375_6H:{number}" for number in range(len(TYPES))]
GENES = [str(5720 + number) for number in range(7)]
INST = ["inst_id", "cell_id", "pert_id", "pert_iname", "pert_type", "pert_dose", "pert_dose_unit", "pert_time"]


@pytest.fixture
def files(tmp_path, write_table):
    """A .gctx: profiles by genes in /0/DATA/0/matrix, ids in /0/META; the tables beside it in another order."""
    values = np.arange(len(TYPES) * len(GENES), dtype=np.float32).reshape(len(TYPES), -1) / 10 + 4
    with h5py.File(tmp_path / MATRIX, "w") as store:
        store["0/DATA/0/matrix"] = values
        store["0/META/ROW/id"] = np.array(GENES, dtype="S")
        store["0/META/COL/id"] = np.array(PROFILES, dtype="S")
    info = [[gene, f"SYM{gene}", "a gene", int(number in (1, 4, 6)), 1] for number, gene in enumerate(GENES)]
    inst = []
    for number, (name, kind) in enumerate(zip(PROFILES, TYPES, strict=True)):
        drug = "DMSO" if kind == "ctl_vehicle" else "vorinostat" if number % 2 else "trichostatin-a"
        dose, unit = ("-666", "-666") if kind == "ctl_vehicle" else ("10.0", "um")
        inst.append([name, ("A375", "MCF7")[number % 2], "BRD", drug, kind, dose, unit, 24])
    header = ["pr_gene_id", "pr_gene_symbol", "pr_gene_title", "pr_is_lm", "pr_is_bing"]
    return {
        MATRIX: tmp_path / MATRIX,
        PREFIX + "gene_info.txt": write_table("gene_info.txt.gz", [header, *reversed(info)]),
        PREFIX + "inst_info.txt": write_table("inst_info.txt.gz", [INST, *reversed(inst)]),
    }


@pytest.mark.parametrize("block", [7, 35, 4_000_000])
def test_compounds_and_vehicle_of_the_landmark_genes(load, files, tally, monkeypatch, block):
    monkeypatch.setattr(StoredMatrix.__init__, "__defaults__", (block,))
    adata = load("l1000", files)
    assert tally(adata, "perturbation") == {
        "drug trichostatin-a 10 uM": 4,
        "drug vorinostat 10 uM": 3,
        "control": 3,
    }
    assert list(adata.var_names) == ["SYM5721", "SYM5724", "SYM5726"]
    assert adata.uns["drops"] == {
        "profile that is neither of a compound nor of its vehicle": 2,
        "gene that was inferred, not measured": 4,
    }
    assert not adata.uns["counts"]
    assert np.allclose(adata[[PROFILES[0], PROFILES[10]]].X.toarray(), [[4.1, 4.4, 4.6], [11.1, 11.4, 11.6]])
    assert set(adata.obs.loc[adata.obs["perturbation"] == "control", "drug"]) == {""}


def test_ids_that_do_not_fit_and_a_packed_matrix_are_refused(load, files):
    with h5py.File(files[MATRIX], "a") as store:
        del store["0/META/COL/id"]
        store["0/META/COL/id"] = np.array(["one"], dtype="S")
    with refused("not-as-published"):
        load("l1000", files)
    files[MATRIX].write_bytes(gzip.compress(files[MATRIX].read_bytes()))
    with refused("not-as-published"):
        load("l1000", files)


def test_chemcpas_file_is_read_too(load, tmp_path):
    obs = pd.DataFrame(
        {
            "pert_iname": pd.Categorical(["DMSO", "vorinostat", "vorinostat"]),
            "cell_id": pd.Categorical(["A375", "A375", "MCF7"]),
            "pert_dose": [-666.0, 0.04, 10.0],
            "pert_dose_unit": pd.Categorical(["-666", "um", "um"]),
        },
        index=["a", "b", "c"],
    )
    values = np.array([[4, 5.5], [6, 7], [8, 9]], dtype=np.float32)
    anndata.AnnData(X=values, obs=obs, var=pd.DataFrame(index=["TP53", "MYC"])).write_h5ad(tmp_path / "lincs_full.h5ad")
    adata = load("l1000_chemcpa", {"lincs_full.h5ad": tmp_path / "lincs_full.h5ad"})
    assert list(adata.obs["perturbation"]) == ["control", "drug vorinostat 0.04 uM", "drug vorinostat 10 uM"]
    assert list(adata.obs["cell_line"]) == ["A375", "A375", "MCF7"]
    assert np.array_equal(adata.X.toarray(), values)
