"""The real files of sets that come with a Python package."""

from __future__ import annotations

import numpy as np
import pytest

from data_prep.download.fetching import fetch
from data_prep.registry import find_dataset

TYPES = {
    "pbmc68k_reduced": ((700, 765), 10, {"Dendritic": 240, "CD4+/CD45RA+/CD25- Naive T": 8}),
    "kidney_immune": ((1000, 19969), 12, {"MNPa(mono)": 242, "pDC": 10}),
    "oligodendroglioma": ((184, 9450), 6, {"Microglia/Macrophage": 19}),
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("name", TYPES)
def test_cells_and_types_are_those_of_the_package(load, cache, tally, name):
    shape, n_types, some = TYPES[name]
    adata = load(name, fetch(find_dataset(name), cache))
    assert adata.shape == shape
    found = tally(adata)
    assert len(found) == n_types
    assert {kind: found[kind] for kind in some} == some
    shared = find_dataset(name).coarse_types
    assert not shared or set(found) == set(shared)
    if name != "oligodendroglioma":
        assert set(shared.values()) - {""} == {"T cell", "B cell", "NK cell", "Monocyte", "Dendritic cell"}
        assert not adata.uns["counts"]
    if name == "kidney_immune":  # some genes were left out after scaling
        assert np.allclose(np.expm1(adata.X.toarray()).sum(axis=1), 10_000, rtol=0.05)
    if name == "pbmc68k_reduced":
        assert not (cache / name / "10x_pbmc68k_reduced.h5ad").exists()  # the installed file is used
