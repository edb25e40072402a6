"""Small files to read and one real preparation to look at."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest

from cellduality_plugin.files import read_jsonl
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.models import build_small_llama
from data_prep.prepare import PrepareSettings, Summary, prepare
from tests.data_prep.served import serving

LABELS = ["B cell"] * 12 + ["T cell"] * 9 + ["NK"] * 3


def toy_counts() -> np.ndarray:
    """Return raw counts of 24 cells in 12 genes; every cell expresses at least nine of them."""
    counts = np.random.default_rng(0).integers(1, 60, size=(24, 12)).astype(np.float32)
    counts[np.arange(24), np.arange(24) % 12] = 0
    return counts


def toy_cells(
    path: Path,
    x: Any = None,
    *,
    genes: list[str] | None = None,
    cells: list[str] | None = None,
    labels: Any = None,
    raw: Any = None,
    layers: Mapping[str, Any] | None = None,
    var: Mapping[str, Any] | None = None,
    without_x: bool = False,
    **obs: Any,
) -> Path:
    """Write an .h5ad file of the toy cells, with whatever is to be wrong with it."""
    x = toy_counts() if x is None else x
    genes = genes or [f"G{number}" for number in range(x.shape[1])]
    cells = cells or [f"cell{number:02}" for number in range(x.shape[0])]
    labels = np.resize(LABELS, x.shape[0]).tolist() if labels is None else labels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known, of_genes = pd.DataFrame({"kind": labels, **obs}, index=cells), pd.DataFrame(var or {}, index=genes)
        adata = anndata.AnnData(X=x, obs=known, var=of_genes, layers=layers)
        if raw is not None:
            adata.raw = anndata.AnnData(X=raw, obs=known, var=of_genes)
        if without_x:
            adata.X = None
        adata.write_h5ad(path)
    return path


@pytest.fixture
def write_h5ad(tmp_path: Path) -> Callable[..., Path]:
    """Return :func:`toy_cells`, which writes ``toy.h5ad``."""
    return partial(toy_cells, tmp_path / "toy.h5ad")


@pytest.fixture
def file_server() -> Iterator[Any]:
    """A server of files on this machine."""
    with serving() as server:
        yield server


@dataclass(frozen=True)
class Prepared:
    """A folder of rows, and how it was made."""

    folder: Path
    settings: PrepareSettings
    summary: Summary

    def rows(self, name: str) -> list[dict[str, Any]]:
        return list(read_jsonl(self.folder / name))

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary.load(self.folder / "vocabulary.json")


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The default preparation of the embedded set."""
    folder, settings = tmp_path_factory.mktemp("prepared") / "data", PrepareSettings()
    return Prepared(folder, settings, prepare(settings, folder))


@pytest.fixture(scope="session")
def small_llama(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small Llama of the default preparation."""
    folder = tmp_path_factory.mktemp("models") / "small_llama"
    build_small_llama(prepared.folder, folder)
    return folder
