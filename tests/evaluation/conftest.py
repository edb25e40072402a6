"""Decoders that need no engine, and a small prepared folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.evaluation.decoding import Decoder, Request
from cellduality_plugin.files import write_jsonl
from cellduality_plugin.parsing import join_response
from cellduality_plugin.tasks import TASKS
from cellduality_plugin.vocabulary import Vocabulary

settings.register_profile("evaluation", deadline=None)  # the first call of a metric imports scikit-learn
settings.load_profile("evaluation")

TYPES = ("B", "NK", "T")
GENES = tuple(f"G{number}" for number in range(36))


class RuleDecoder:
    """Answers by ``rule`` (prompt -> answer text) and remembers what it was asked."""

    def __init__(self, rule: Callable[[Request], str | None]) -> None:
        self.rule = rule
        self.asked: list[Request] = []

    def generate(self, requests: Sequence[Request], title: str) -> list[str | None]:
        self.asked += requests
        answers = [self.rule(request) for request in requests]
        return [None if answer is None else join_response(answer) for answer in answers]


def true_type(prompt: str) -> str:
    """The type whose twelve genes the cell in the prompt's last line is made of."""
    first = prompt.rsplit(" ", 1)[1]
    return TYPES[int(first[1:]) // 12]


def expert(request: Request) -> str:
    """Knows the rule by which the cells below are made."""
    if request.prompt.startswith("Name"):
        return true_type(request.prompt)
    if request.prompt.startswith("Write"):
        place = 12 * TYPES.index(request.prompt.rsplit(" ", 1)[1])
        genes = list(GENES[place : place + 12])
        np.random.default_rng(request.seed).shuffle(genes)
        return " ".join(genes[:8])
    observed = request.prompt.rsplit(": ", 1)[1].split()
    place = 12 * TYPES.index(true_type(request.prompt))
    return " ".join(gene for gene in GENES[place : place + 12] if gene not in observed)


@pytest.fixture
def decode_by() -> type[RuleDecoder]:
    return RuleDecoder


@pytest.fixture
def expert_decoder() -> RuleDecoder:
    return RuleDecoder(expert)


@pytest.fixture
def opened(expert_decoder: RuleDecoder) -> Callable[[Path], AbstractContextManager[Decoder]]:
    """Opens the same expert for every model."""

    @contextmanager
    def opener(model: Path) -> Iterator[Decoder]:
        yield expert_decoder

    return opener


@pytest.fixture
def vocabulary() -> Vocabulary:
    return Vocabulary(GENES, {"cell_type": TYPES})


@pytest.fixture
def data(tmp_path: Path, vocabulary: Vocabulary) -> Path:
    """A prepared folder: cells of a type hold eight of that type's own twelve genes, in random order."""
    folder = tmp_path / "data"
    vocabulary.save(folder / "vocabulary.json")
    rng = np.random.default_rng(0)
    cells, rows = [], []
    for number in range(150):
        kind = number % 3
        split = "train" if number < 90 else "validation" if number < 120 else "test"
        genes = tuple(GENES[12 * kind + place] for place in rng.permutation(12)[:8])
        cell = Cell(f"made/{number}", genes, {"cell_type": TYPES[kind]})
        labelled = split == "train" and number < 45
        cells.append({"id": cell.id, "split": split, "labelled": labelled, "genes": list(genes), **cell.obs})
        if split != "train":
            for task in TASKS.values():
                example = task.example(cell, hidden=0.25, labelled=True, rng=rng)
                prompt = task.primal_prompt(example.inputs, vocabulary)
                row = {"input": prompt, "label": example.to_label(), "datasource": task.name, "id": cell.id}
                rows.append((split, row))
    write_jsonl(folder / "cells.jsonl", cells)
    for split in ("validation", "test"):
        write_jsonl(folder / f"eval_{split}.jsonl", [row for kind_of, row in rows if kind_of == split])
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that looks like a checkpoint as far as hashing goes."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"hidden_size": 8}))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder
