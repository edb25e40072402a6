"""A small world whose policy is known to the last probability."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.config import Config
from cellduality_plugin.evaluation.audit.engine import Players
from cellduality_plugin.files import write_jsonl
from cellduality_plugin.parsing import join_response, split_response
from cellduality_plugin.profiles import Profile, Profiles
from cellduality_plugin.seeds import request_seed
from cellduality_plugin.tasks import TASKS
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.rows import RowMaker
from data_prep.settings import PrepareSettings

TYPES = ("B", "NK", "T")
GENES = tuple(f"G{number}" for number in range(36))
ANNOTATION, GENERATION = "cell_type_annotation", "conditional_cell_generation"
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


class PlantedPolicy:
    """A policy with planted probabilities: it names a type, and writes a gene of its type, with probability ``skill``.

    One third knows nothing. Without a seed it gives the likeliest answer.
    """

    def __init__(self, skill: float, seed: int | None = None) -> None:
        self.skill, self.seed = skill, seed
        self.asked: list[tuple[str, str | tuple[str, ...]]] = []
        self._draws: Counter[str] = Counter()

    async def generate(self, prompt: str, *, seed: int | None = None, temperature: float | None = None) -> str:
        self.asked.append((prompt, ""))
        await asyncio.sleep(0)
        rng = np.random.default_rng(request_seed(self.seed or 0, prompt, self._draws[prompt]))
        self._draws[prompt] += 1
        shown = prompt.rsplit(": ", 1)[1].split()
        if prompt.startswith("Name the type"):
            return join_response(self._draw(TYPES[int(shown[0][1:]) // 12], rng), "seen")
        kind = shown[-1] if prompt.startswith("Write a cell") else prompt.split("Type: ")[1].split("\n")[0]
        genes = [gene for gene in own(self._draw(kind, rng)) if gene not in shown]
        return join_response(" ".join(rng.permutation(genes)[:8] if self.seed is not None else genes[:8]))

    async def log_probs(self, prompt: str, response: str, *, given: str = "") -> list[float]:
        self.asked.append((prompt, response))
        await asyncio.sleep(0)
        return self._said(prompt, response)

    async def choice_log_probs(self, prompt: str, responses: Sequence[str]) -> list[float]:
        self.asked.append((prompt, tuple(responses)))
        await asyncio.sleep(0)
        return [math.fsum(self._said(prompt, response)) for response in responses]

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


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return Vocabulary(GENES, {"cell_type": TYPES})


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Path:
    """A prepared folder: 24 cells of three types, under four masks, their profiles, and rewards of a user's own.

    Not to be changed.
    """
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("audited") / "data"
    cells = [
        Cell(f"made/{number}", tuple(rng.permutation(own(kind))[:8].tolist()), {"cell_type": kind})
        for number, kind in enumerate(TYPES * 8)
    ]
    vocabulary.save(folder / "vocabulary.json")
    tasks = [TASKS[name] for name in (ANNOTATION, GENERATION)]
    rows = RowMaker(tasks, vocabulary, PrepareSettings(n_audit=24)).audit(cells, rng)
    write_jsonl(folder / "audit.jsonl", rows)
    weights = np.array([[gene in own(kind) for gene in GENES] for kind in TYPES], dtype=np.float32)
    Profiles(GENES, {"cell_type": Profile(TYPES, weights, np.zeros(len(TYPES), np.float32))}).save(
        folder / "profiles.npz"
    )
    tasks_of_run = {name: {"pair": name} for name in (ANNOTATION, GENERATION)}
    Config.read({"tasks": tasks_of_run, "profiles": "profiles.npz"}).save(folder / "cellduality.json")
    (folder / "mine.py").write_text(REWARDS)
    return folder


@pytest.fixture
def config(data: Path) -> Config:
    return Config.load(data / "cellduality.json")


@pytest.fixture(scope="session")
def players() -> Callable[..., Callable[[], nullcontext[Players]]]:
    """Return a function that gives what opens players of a skill; words are their tokens."""

    def words(text: str) -> int:
        return len(text.split())

    def make(skill: float = 0.8) -> Callable[[], nullcontext[Players]]:
        found = Players(PlantedPolicy(skill), PlantedPolicy(skill), PlantedPolicy(skill, 7), words, words)
        return lambda: nullcontext(found)

    return make
