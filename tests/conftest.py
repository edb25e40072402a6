"""The small world the fast tests live in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.config import Config
from cellduality_plugin.examples import Example
from cellduality_plugin.tasks import TASKS, DualTask
from cellduality_plugin.vocabulary import Vocabulary

GENES = ("CD3D", "CD3E", "CD74", "CD79A", "CST3", "FTL", "GNLY", "HLA-DRA", "IL7R", "LYZ", "MS4A1", "NKG7", "S100A9")


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return Vocabulary(genes=GENES, labels={"cell_type": ("CD14+ Monocyte", "CD19+ B", "CD56+ NK", "T")})


@pytest.fixture(scope="session")
def cell() -> Cell:
    genes = ("CD74", "CD79A", "HLA-DRA", "MS4A1", "FTL", "CST3", "LYZ", "IL7R")
    return Cell("set/AAAC-1", genes, {"cell_type": "CD19+ B"})


@pytest.fixture(params=sorted(TASKS))
def task(request: pytest.FixtureRequest) -> DualTask:
    return TASKS[request.param]


@pytest.fixture
def example(task: DualTask, cell: Cell) -> Example:
    return task.example(cell, hidden=0.25, labelled=True, rng=np.random.default_rng(0))


@pytest.fixture
def make_config(tmp_path: Path, vocabulary: Vocabulary) -> Callable[..., Config]:
    """Return a function that writes a configuration of the built-in pairs into a folder and loads it."""

    def make(**settings: object) -> Config:
        vocabulary.save(tmp_path / "vocabulary.json")
        values = {"tasks": {name: {"pair": name} for name in TASKS}, **settings}
        Config.read(values).save(tmp_path / "cellduality.json")
        return Config.load(tmp_path / "cellduality.json")

    return make
