"""A prepared folder of a few rows and a Llama of one layer: enough for a real tokenizer, made in a second."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.config import Config
from cellduality_plugin.files import write_jsonl
from cellduality_plugin.tasks import TASKS
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.rows import eval_rows, rl_rows, sft_rows
from data_prep.small_llama import build_small_llama


@dataclass(frozen=True)
class SmallWorld:
    """The folder of the rows, the folder of the model."""

    data: Path
    model: Path

    @property
    def config(self) -> Path:
        return self.data / "cellduality.json"

    @cached_property
    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.model)


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary, cell: Cell) -> SmallWorld:
    data, model = (tmp_path_factory.mktemp("small world") / name for name in ("data", "model"))
    tasks, rng = list(TASKS.values()), np.random.default_rng(0)
    evaluation = eval_rows([cell], tasks, vocabulary, hidden=0.25, rng=rng)
    rl = rl_rows(
        [cell], [], dict.fromkeys(tasks, 1.0), vocabulary, count=2, hidden=0.25, includes_labelled=True, rng=rng
    )
    vocabulary.save(data / "vocabulary.json")
    Config.read({"tasks": {name: {"pair": name} for name in TASKS}}).save(data / "cellduality.json")
    write_jsonl(data / "sft.jsonl", sft_rows([cell], tasks, vocabulary, hidden=0.25, views=1, rng=rng))
    write_jsonl(data / "rl.jsonl", rl)
    for split in ("validation", "test"):
        write_jsonl(data / f"eval_{split}.jsonl", evaluation)
    build_small_llama(data, model, hidden_size=16, layers=1, heads=2, max_len=256)
    return SmallWorld(data, model)
