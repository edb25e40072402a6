"""Small files to read and one real preparation to look at."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest

from cellduality_plugin.config import Config
from cellduality_plugin.examples import Example
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.manifests import read_manifest
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


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@dataclass(frozen=True)
class Prepared:
    """A folder of rows, and how it was made."""

    folder: Path
    settings: PrepareSettings | None = None
    summary: Summary | None = None
    said: str = ""  # by the command line

    @classmethod
    def by(cls, settings: PrepareSettings, folder: Path) -> Prepared:
        return cls(folder, settings, prepare(settings, folder))

    def rows(self, name: str) -> list[dict[str, Any]]:
        return list(read_jsonl(self.folder / f"{name.removesuffix('.jsonl')}.jsonl"))

    @property
    def cells(self) -> dict[str, dict[str, Any]]:
        return {row["id"]: row for row in self.rows("cells")}

    def examples(self, name: str, task: str = "") -> list[Example]:
        return [Example.from_label(row["label"]) for row in self.rows(name) if task in ("", row["datasource"])]

    def asked(self, name: str) -> Counter[str]:
        return Counter(row["datasource"] for row in self.rows(name))

    def manifest(self, name: str) -> dict[str, Any]:
        return read_manifest(self.folder / name)

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary.load(self.folder / "vocabulary.json")

    @property
    def config(self) -> Config:
        return Config.load(self.folder / "cellduality.json")


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The default preparation of the embedded set."""
    return Prepared.by(PrepareSettings(), tmp_path_factory.mktemp("prepared") / "data")


def toy_settings(path: Path, **changes) -> PrepareSettings:
    sources = [{"name": str(path), "label_column": "kind"}]
    return PrepareSettings.read({"sources": sources, "n_labelled": 6, "n_rl": 20, "top_genes": 10, **changes})


RESPONSE, EXPOSURE = "perturbation_response_generation", "drug_exposure_prediction"
IFN = "cytokine IFN-beta"


def write_treated(path: Path) -> str:
    """Write cells of three types, half of them treated: the treatment raises the first genes, a type its own gene."""
    rng, kinds = np.random.default_rng(4), ("B", "T", "NK")
    kind, treated = np.repeat(kinds, 40), np.tile([False, True], 60)
    counts = rng.integers(8, 20, size=(len(kind), 30)).astype(np.float32)
    counts[treated, :5] += 40
    for place, name in enumerate(kinds):
        counts[kind == name, 10 + place] += 60
    exposed = np.where(treated, "exposed", "not exposed")
    columns = {"labels": kind, "treatment": np.where(treated, IFN, "control"), "agent": "IFN-beta", "exposed": exposed}
    return str(toy_cells(path, counts, cells=[f"c{number}" for number in range(len(kind))], **columns))


IDENTITY = ["cell_type_annotation", "conditional_cell_generation"]
TREATED = {
    "tasks": [RESPONSE, EXPOSURE], "label_column": "kind", "n_labelled": 12, "held_out": {"cell_type": ["NK"]},
    "columns": {"perturbation": "treatment", "drug": "agent", "exposure": "exposed"},
}  # fmt: skip


def two_sources(folder: Path, **changes) -> PrepareSettings:
    """Settings of a generalist: the toy cells for the identity tasks, the treated ones for the others."""
    toy = {"name": str(toy_cells(folder / "toy.h5ad")), "tasks": IDENTITY, "label_column": "kind"}
    sources = [toy, {"name": write_treated(folder / "treated.h5ad"), **TREATED}]
    tasks = dict.fromkeys(IDENTITY, 1) | {RESPONSE: 2, EXPOSURE: 1}
    return toy_settings(folder, sources=sources, tasks=tasks, **{"n_rl": 50, **changes})


@pytest.fixture(scope="session")
def generalist(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Two sets, of which one is asked neither for types nor for cells of a type."""
    folder = tmp_path_factory.mktemp("generalist")
    return Prepared.by(two_sources(folder, pretrain_views=2, clusters=5), folder / "out")


@pytest.fixture(scope="session")
def small_llama(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small Llama of the default preparation."""
    folder = tmp_path_factory.mktemp("models") / "small_llama"
    build_small_llama(prepared.folder, folder)
    return folder
