"""Small sets to write in the published shape, and the one shape every loader gives."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import scipy.sparse

from data_prep.registry import find_dataset


@pytest.fixture
def counts() -> Callable[..., np.ndarray]:
    """Return a function that gives cells by genes, with nearly all genes expressed in nearly all cells."""

    def make(n_cells: int, n_genes: int = 230, high: int = 9) -> np.ndarray:
        values = np.random.default_rng(n_cells).integers(1, high, size=(n_cells, n_genes))
        values[np.arange(n_cells), np.arange(n_cells) % n_genes] = 0
        return values

    return make


@pytest.fixture
def write_table(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a text table, packed if its name ends with .gz."""

    def write(name: str, lines: Sequence[Sequence[Any]], separator: str = "\t") -> Path:
        content = "".join(separator.join(map(str, line)) + "\n" for line in lines).encode()
        path = tmp_path / name
        path.write_bytes(gzip.compress(content, 1) if name.endswith(".gz") else content)
        return path

    return write


@pytest.fixture
def load() -> Callable[..., anndata.AnnData]:
    """Return a function that loads a set by name and checks what all sets have in common."""

    def loaded(name: str, files: dict[str, Path], variant: str = "", columns: tuple[str, ...] = ()) -> anndata.AnnData:
        dataset = find_dataset(name)
        adata = dataset.load(files, variant)
        assert isinstance(adata.X, scipy.sparse.csr_matrix)
        assert adata.X.dtype == np.float32
        assert (adata.X.data > 0).all()
        assert adata.obs_names.is_unique
        assert adata.var_names.is_unique
        assert sorted(adata.obs.columns) == sorted(columns or dataset.columns)
        assert all(type(value) is str for column in adata.obs for value in adata.obs[column])
        assert adata.uns["dataset"] == name
        assert adata.uns["species"] == dataset.species
        assert adata.uns["variant"] == (variant or dataset.default_variant)
        assert adata.uns["expression"] in ("counts", "log1p", "tpm", "rpkm", "log2")
        assert all(type(count) is int and count > 0 for count in adata.uns["drops"].values())
        return adata

    return loaded
