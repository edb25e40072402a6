"""A prepared folder of three types, a packed model of random weights, and policies that play for it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import anndata
import numpy as np
import pandas
import pytest

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.config import Config
from cellduality_plugin.evaluation.audit.engine import Players
from cellduality_plugin.files import write_jsonl
from cellduality_plugin.inference import asking
from cellduality_plugin.inference.checkpoint import pack
from cellduality_plugin.tasks import TASKS
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.manifests import write_manifest
from data_prep.models import ROWS, build_small_llama
from data_prep.rows import RowMaker
from data_prep.settings import PrepareSettings
from tests.evaluation.audit.conftest import ANNOTATION, GENERATION, GENES, TYPES, own

KEY = "cell_type_cellduality"
DRUG = "drug X 2 uM"
ELSEWHERE = "G99"  # a gene of the vocabulary that no cell of the set shows: other sets of the run have it
CONFUSED = 5  # one cell in so many has the genes of another type: nobody can know


def made_cells(split: str, count: int) -> list[dict[str, object]]:
    """Rows of the cells file, whose genes are those of their type, or for some of the next one."""
    rng, rows = np.random.default_rng(len(split)), []
    for number in range(count):
        place = number % 3
        genes = rng.permutation(own(TYPES[(place + (number % CONFUSED == 0)) % 3])).tolist()
        rows.append({"id": f"made/{split}{number}", "split": split, "labelled": False, "genes": genes})
        rows[-1]["cell_type"] = TYPES[place]
    return rows


def cells_of(kinds, treated=False, seed=0) -> anndata.AnnData:
    """Counts in which a type expresses its twelve genes, the later ones higher once it is treated."""
    rng, counts = np.random.default_rng(seed), np.zeros((len(kinds), len(GENES)), dtype=np.float32)
    for row, kind in enumerate(kinds):
        if kind:
            falling = np.arange(400, 340, -5) + rng.integers(0, 4, 12)
            counts[row, [GENES.index(gene) for gene in own(kind)]] = falling[::-1] if treated else falling
    obs = {"kind": kinds, "perturbation": DRUG if treated else "control", "drug": "X", "exposure": str(treated)}
    names = [f"{'ts'[treated]}{row}" for row in range(len(kinds))]
    return anndata.AnnData(counts, pandas.DataFrame(obs, index=names), pandas.DataFrame(index=list(GENES)))


def packed(model: Path, data: Path) -> Path:
    """A folder of real weights, which are random, and all that their use needs."""
    build_small_llama(data, model, hidden_size=16, layers=1, heads=2, max_len=256)
    pack(model, data, None, max_len=256, max_new_tokens=24)
    return model


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """A prepared folder of three types, with cells of all splits."""
    folder = tmp_path_factory.mktemp("prepared")
    cells = [Cell(f"made/{kind}", own(kind), {"cell_type": kind}) for kind in TYPES]
    vocabulary = Vocabulary((*GENES, ELSEWHERE), {"cell_type": TYPES})
    vocabulary.save(folder / "vocabulary.json")
    train = [
        {"id": cell.id, "split": "train", "labelled": True, "genes": list(cell.genes), **cell.obs} for cell in cells
    ]
    write_jsonl(folder / "cells.jsonl", [*train, *made_cells("validation", 120), *made_cells("test", 90)])
    settings = {"hidden": [1.0], "top_genes": 12, "min_genes": 4}
    origin = {"source": "made", "sha256_by_source": {"made": "0"}, "settings": settings}
    write_manifest(folder / "cells.jsonl", origin, counts={"train": 3, "labelled": 3})
    names = (ANNOTATION, GENERATION)
    tasks, rng = [TASKS[name] for name in names], np.random.default_rng(0)
    write_jsonl(folder / "sft.jsonl", RowMaker(tasks, vocabulary, PrepareSettings(hidden=1.0)).sft(cells, rng))
    for name in ROWS[1:]:
        write_jsonl(folder / name, [])
    config = {"tasks": {name: {"pair": name, "reward": "posterior"} for name in names}}
    Config.read(config).save(folder / "cellduality.json")
    return folder


@pytest.fixture(scope="session")
def trained(data, tmp_path_factory) -> Path:
    """A packed model. Not to be changed."""
    return packed(tmp_path_factory.mktemp("model") / "m", data)


@pytest.fixture
def played_by(monkeypatch) -> Callable[..., None]:
    """Return a function that lets policies play for the model: the dual, the greedy one, and the one that samples."""

    def play(*policies) -> None:
        monkeypatch.setattr(asking, "checkpoint_players", lambda *_, **__: nullcontext(Players(None, *policies)))

    return play
