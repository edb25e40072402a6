"""The types are derived, so what is tested is that planted types are found again, whatever the treatment does."""

from __future__ import annotations

import warnings
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import scipy.sparse

from data_prep.datasets.kang_2018_ifnb import AMBIGUOUS, FILES, MARKERS, RED_BLOOD
from tests.refused import refused

NAME = "kang_2018_ifnb"
RESPONDING = ("ISG15", "IFI6", "IFIT1", "MX1")
BACKGROUND = tuple(f"GENE{number}" for number in range(60))
GENES = (*(gene for names in MARKERS.values() for gene in names), *RESPONDING, *BACKGROUND)
KINDS = {"B cell": 60, "T cell": 90, "Monocyte": 80, "NK cell": 40, "Red blood cell": 30}


def planted_counts(rng: np.random.Generator, *, treated: bool, doublets: int = 0) -> tuple[np.ndarray, list[str]]:
    """Return (counts, planted types): a type has its markers, treated cells of every type respond alike."""
    kinds = [kind for kind, count in KINDS.items() for _ in range(count)] + ["doublet"] * doublets
    counts = rng.poisson(0.3, size=(len(kinds), len(GENES)))
    counts[:, -len(BACKGROUND) :] += rng.poisson(2, size=(len(kinds), len(BACKGROUND)))
    for row, kind in enumerate(kinds):
        for name in ("B cell", "T cell") if kind == "doublet" else (kind,):
            places = [GENES.index(gene) for gene in MARKERS[name]]
            counts[row, places] += rng.poisson(40, size=len(places))
    if treated:
        counts[:, [GENES.index(gene) for gene in RESPONDING]] += 60
    return counts, kinds


def write(folder: Path, *, doublets: int = 0, genes: dict[str, tuple[str, ...]] | None = None) -> dict[str, Path]:
    files = {}
    for number, name in enumerate(FILES.values()):
        counts, kinds = planted_counts(np.random.default_rng(number), treated=number == 1, doublets=doublets)
        obs = pd.DataFrame(index=[f"{kind}-{number}-{place}" for place, kind in enumerate(kinds)])
        var = pd.DataFrame(index=list((genes or {}).get(name, GENES)))
        files[name] = folder / name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            matrix = scipy.sparse.csr_matrix(counts.astype(np.float32))
            anndata.AnnData(X=matrix, obs=obs, var=var).write_h5ad(files[name])
    return files


def planted(adata) -> list[str]:
    return [name.partition("-")[0] for name in adata.obs_names]


def test_planted_types_are_found_in_both_samples_whatever_was_done(load, tmp_path):
    adata = load(NAME, write(tmp_path))
    assert list(adata.obs["cell_type"]) == planted(adata)
    assert adata.uns["drops"] == {RED_BLOOD: 60}
    assert adata.shape == (2 * (60 + 90 + 80 + 40), len(GENES))
    obs = adata.obs
    assert set(obs["drug"]) == {"IFN-beta"}
    for perturbation, exposure in (("control", "not exposed"), ("cytokine IFN-beta", "exposed")):
        some = obs[obs["perturbation"] == perturbation]
        assert set(some["exposure"]) == {exposure}
        assert dict(some["cell_type"].value_counts()) == {k: n for k, n in KINDS.items() if k != "Red blood cell"}


def test_cluster_between_two_types_is_left_out_and_counted_alike_each_time(load, tmp_path):
    files = write(tmp_path, doublets=40)
    adata = load(NAME, files)
    assert planted(adata).count("doublet") <= 4
    assert 76 <= adata.uns["drops"][AMBIGUOUS] <= 90
    assert adata.obs.equals(load(NAME, files).obs)


def test_files_that_do_not_belong_together_are_refused(load, tmp_path):
    genes = {"pbmc_stim.h5ad": tuple(reversed(GENES))}
    with refused("not-as-published"):
        load(NAME, write(tmp_path, genes=genes))


def test_no_marker_stands_for_two_types():
    genes = [gene for names in MARKERS.values() for gene in names]
    assert len(set(genes)) == len(genes)
    assert not {gene for gene in genes if gene.startswith(("IFI", "ISG", "MX", "OAS", "CXCL"))}
