"""A small world whose policy is known to the last probability."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.config import Config
from cellduality_plugin.evaluation.audit.engine import Players
from cellduality_plugin.files import write_jsonl
from cellduality_plugin.parsing import join_response, split_response
from cellduality_plugin.policies.base import Question, QuestionPolicy
from cellduality_plugin.profiles import Profile, Profiles
from cellduality_plugin.seeds import request_seed
from cellduality_plugin.tasks import TASKS
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.rows import RowMaker
from data_prep.settings import PrepareSettings

TYPES = ("B", "NK", "T")
GENES = tuple(f"G{number}" for number in range(36))
NAMES = ANNOTATION, GENERATION = "cell_type_annotation", "conditional_cell_generation"
REWARDS = """
from cellduality_plugin.rewards import Reward, Verdict


class Constant(Reward):
    async def judge(self, answer, dual):
        return Verdict(0.5)


class Contrary(Reward):
    async def judge(self, answer, dual):
        return Verdict(float(answer != dual.example.gold))
"""


def own(kind: str) -> tuple[str, ...]:
    """The twelve genes that cells of a type are made of."""
    place = 12 * TYPES.index(kind)
    return GENES[place : place + 12]


class Words:
    """A tokenizer whose tokens are words."""

    def apply_chat_template(self, chat: list[dict[str, str]], **how: object) -> str:
        return chat[0]["content"]

    def __call__(self, text: str, **how: object) -> dict[str, list[str]]:
        return {"input_ids": text.split()}


class PlantedPolicy(QuestionPolicy):
    """A policy with planted probabilities: it names a type, and writes a gene of its type, with probability ``skill``.

    One third knows nothing. Without a seed it gives the likeliest answer. ``asked`` keeps (prompt, what was scored).
    """

    def __init__(self, skill: float, seed: int | None = None) -> None:
        super().__init__()
        self.skill, self.seed = skill, seed
        self.asked: list[tuple[str, str | tuple[str, ...]]] = []

    async def answer(self, question: Question) -> Any:
        prompt, response = question.prompt, question.response
        self.asked.append((prompt, question.choices or response or ""))
        await asyncio.sleep(0)
        if question.choices:
            return [math.fsum(self._said(prompt, choice)) for choice in question.choices]
        if response is not None:
            return self._said(prompt, response)
        rng = np.random.default_rng(request_seed(self.seed or 0, prompt, question.draw, question.seed))
        shown = prompt.rsplit(": ", 1)[1].split()
        if prompt.startswith("Name the type"):
            return join_response(self._draw(TYPES[int(shown[0][1:]) // 12], rng), "seen")
        kind = shown[-1] if prompt.startswith("Write a cell") else prompt.split("Type: ")[1].split("\n")[0]
        genes = [gene for gene in own(self._draw(kind, rng)) if gene not in shown]
        return join_response(" ".join(rng.permutation(genes)[:8] if self.seed is not None else genes[:8]))

    def _said(self, prompt: str, response: str) -> list[float]:
        answer = split_response(response).answer
        if prompt.startswith("Name the type"):
            kind = TYPES[int(prompt.rsplit(": ", 1)[1].split()[0][1:]) // 12]
            return [math.log(self.skill if answer == kind else (1 - self.skill) / 2)]
        block = own(prompt.split("Type: ")[1].split("\n")[0])
        return [math.log((self.skill if gene in block else (1 - self.skill) / 2) / 12) for gene in answer.split()]

    def _draw(self, kind: str, rng: np.random.Generator) -> str:
        if self.seed is None or rng.random() < self.skill:
            return kind
        return str(rng.choice([other for other in TYPES if other != kind]))


def cells_of_types(times: int, rng: np.random.Generator) -> list[Cell]:
    """So many cells of each type, one after the other, that hold eight of that type's genes in random order."""
    return [
        Cell(f"made/{number}", tuple(rng.permutation(own(kind))[:8].tolist()), {"cell_type": kind})
        for number, kind in enumerate(TYPES * times)
    ]


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return Vocabulary(GENES, {"cell_type": TYPES})


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Path:
    """A prepared folder: 24 cells of three types, under four masks, their profiles, and rewards of a user's own.

    Not to be changed.
    """
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("audited") / "data"
    vocabulary.save(folder / "vocabulary.json")
    made = RowMaker([TASKS[name] for name in NAMES], vocabulary, PrepareSettings(n_audit=24))
    rows = made.audit(cells_of_types(8, rng), rng)
    write_jsonl(folder / "audit.jsonl", rows)
    weights = np.array([[gene in own(kind) for gene in GENES] for kind in TYPES], dtype=np.float32)
    profiles = Profiles(GENES, {"cell_type": Profile(TYPES, weights, np.zeros(len(TYPES), np.float32))})
    profiles.save(folder / "profiles.npz")
    config = {"tasks": {name: {"pair": name} for name in NAMES}, "profiles": "profiles.npz"}
    Config.read(config).save(folder / "cellduality.json")
    (folder / "mine.py").write_text(REWARDS)
    return folder


@pytest.fixture
def config(data: Path) -> Config:
    return Config.load(data / "cellduality.json")


def players(skill: float = 0.8) -> Callable[[], nullcontext[Players]]:
    """Return what opens players of a skill."""
    policies = PlantedPolicy(skill), PlantedPolicy(skill), PlantedPolicy(skill, 7)
    return lambda: nullcontext(Players(Words(), *policies))
