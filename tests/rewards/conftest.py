"""A reward of one task, a row of it, and a dual that knows the row."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from cellduality_plugin.config import Config
from cellduality_plugin.examples import Example
from cellduality_plugin.groups import Score
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.scoring import Scorer
from cellduality_plugin.tasks import TASKS, DualTask
from cellduality_plugin.vocabulary import Vocabulary
from tests.conftest import profiles_of

MINE = """
import asyncio

from cellduality_plugin.rewards import Reward, Verdict

class Mine(Reward):
    async def judge(self, answer, dual):
        [rebuilt] = await dual.rebuilt(answer)
        return Verdict(float(rebuilt.value == dual.example.unknown))

class Hanging(Reward):
    async def judge(self, answer, dual):
        await asyncio.sleep(60)

class Open(Reward):
    pass

class Other:
    pass
"""


class Knowing:
    """Plays the dual as one who knows the row: sure of what is hidden where the answer is right, else of nothing."""

    def __init__(self, task, example, vocabulary, *, delay=0.0, fails=None, log_prob=None):
        self.right = task.dual_prompt(example.known, example.gold, vocabulary)
        self.asked = task.primal_prompt(example.inputs, vocabulary), task.answer_response(example.gold)
        self.rebuilt = task.rebuilt_response(example.unknown)
        self.delay, self.fails, self.log_prob = delay, fails, log_prob
        self.prompts, self.asked_for = [], set()

    async def _ask(self, prompt, what):
        self.prompts.append(prompt)
        self.asked_for.add(what)
        await asyncio.sleep(self.delay)
        if self.fails:
            raise self.fails

    async def generate(self, prompt, *, seed=None, temperature=None):
        await self._ask(prompt, "generate")
        return self.rebuilt if prompt == self.right else "I cannot tell."

    async def log_probs(self, prompt, response, *, given=""):
        await self._ask(prompt, "log_probs")
        return self._said(prompt, response)

    async def choice_log_probs(self, prompt, responses):
        await self._ask(prompt, "log_probs")
        return [sum(self._said(prompt, response)) for response in responses]

    def _said(self, prompt, response):
        value = 0.0 if (prompt, response) in [(self.right, self.rebuilt), self.asked] else -10.0
        return [value if self.log_prob is None else self.log_prob] * 3


@dataclass(frozen=True)
class Case:
    """A reward of one task, and a row of it."""

    scorer: Scorer
    task: DualTask
    example: Example
    vocabulary: Vocabulary

    def __str__(self) -> str:
        return self.task.name

    def knowing(self, **how: Any) -> Knowing:
        return Knowing(self.task, self.example, self.vocabulary, **how)

    def answer(self, *answers: Any, by: Any = None) -> list[Score]:
        """Return the scores of a group of answers, judged by the policy ``by``."""
        return self.say(*map(self.task.answer_response, answers), by=by)

    def say(self, *texts: str, by: Any = None) -> list[Score]:
        async def group() -> list[Score]:
            members = self.scorer.group(self.example.to_label())
            return await asyncio.gather(*(self.scorer.score(text, members, by) for text in texts))

        return asyncio.run(group())

    @property
    def gold(self) -> Any:
        return self.example.gold

    @property
    def wrong(self) -> Any:
        """A readable answer that is as far from the right one as there is."""
        if isinstance(self.task.answer, OneOf):
            return next(label for label in self.labels if label != self.gold)
        return tuple(gene for gene in self.vocabulary.genes if gene not in self.gold)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.vocabulary.labels[self.task.answer.kind]


@pytest.fixture(scope="module")
def case_of(tmp_path_factory, vocabulary, cell):
    """Return a function that makes the case of a reward and the one cell."""
    folder = tmp_path_factory.mktemp("rewards")
    vocabulary.save(folder / "vocabulary.json")
    profiles_of(cell, vocabulary).save(folder / "profiles.npz")
    (folder / "mine.py").write_text(MINE)

    def make(name, reward, *, hidden=0.25, labelled=True, dual=None, **settings):
        tasks = {name: {"pair": name, "reward": reward, **settings}}
        values = {"tasks": tasks, "profiles": "profiles.npz", "dual": dual or {}}
        Config.read(values).save(folder / "cellduality.json")
        example = TASKS[name].example(cell, hidden=hidden, labelled=labelled, rng=np.random.default_rng(0))
        return Case(Scorer(Config.load(folder / "cellduality.json")), TASKS[name], example, vocabulary)

    return make
