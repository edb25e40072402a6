"""The real files of sets that come with a Python package."""

from __future__ import annotations

import numpy as np
import pytest

from data_prep.download.fetching import fetch
from data_prep.registry import find_dataset


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def test_scanpys_blood_cells_are_read_from_raw(load, cache):
    files = fetch(find_dataset("pbmc68k_reduced"), cache)
    assert not (cache / "pbmc68k_reduced" / "10x_pbmc68k_reduced.h5ad").exists()  # the installed file is used
    adata = load("pbmc68k_reduced", files)
    assert adata.shape == (700, 765)
    assert adata.obs["cell_type"].value_counts()[["Dendritic", "CD4+/CD45RA+/CD25- Naive T"]].tolist() == [240, 8]
    assert adata.uns["expression"] == "log1p"


def test_kidney_comes_from_a_source_distribution(load, cache):
    adata = load("kidney_immune", fetch(find_dataset("kidney_immune"), cache))
    assert adata.shape == (1000, 19969)
    kinds = adata.obs["cell_type"].value_counts()
    assert len(kinds) == 12
    assert kinds[["MNPa(mono)", "pDC"]].tolist() == [242, 10]
    sums = np.expm1(adata.X.toarray()).sum(axis=1)
    assert np.allclose(sums, 10_000, rtol=0.05)  # some genes were left out after scaling


def test_oligodendroglioma_comes_from_a_wheel(load, cache):
    adata = load("oligodendroglioma", fetch(find_dataset("oligodendroglioma"), cache))
    assert adata.shape == (184, 9450)
    assert adata.obs["cell_type"].value_counts()["Microglia/Macrophage"] == 19


@pytest.mark.parametrize("name", ["kidney_immune", "pbmc68k_reduced"])
def test_every_label_has_a_place_among_the_coarse_types(load, cache, name):
    dataset = find_dataset(name)
    labels = set(load(name, fetch(dataset, cache)).obs["cell_type"])
    assert labels == set(dataset.coarse_types)


def test_kidney_and_blood_share_their_coarse_types():
    kidney, blood = (
        {kind for kind in find_dataset(name).coarse_types.values() if kind}
        for name in ("kidney_immune", "pbmc68k_reduced")
    )
    assert kidney == blood == {"T cell", "B cell", "NK cell", "Monocyte", "Dendritic cell"}
