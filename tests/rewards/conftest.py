"""A reward of one task, a row of it, and a dual that knows the row."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from cellduality_plugin.config import Config
from cellduality_plugin.examples import Example
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.scoring import Score, Scorer
from cellduality_plugin.tasks import TASKS, DualTask
from cellduality_plugin.vocabulary import Vocabulary
from tests.conftest import profiles_of
from tests.play import Saying, row

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


@dataclass(frozen=True)
class Case:
    """A reward of one task, and a row of it."""

    scorer: Scorer
    task: DualTask
    example: Example
    vocabulary: Vocabulary

    def __str__(self) -> str:
        return self.task.name

    def knowing(self, *, log_prob: float | None = None, **how: Any) -> Saying:
        """Return a policy that is sure of what is hidden where the answer is right, else of nothing."""
        task, example = self.task, self.example
        right = task.dual_prompt(example.known, self.gold, self.vocabulary)
        rebuilt = task.rebuilt_response(example.unknown)
        again = task.primal_prompt(example.inputs, self.vocabulary), task.answer_response(self.gold)

        def likely(prompt: str, response: str, given: str) -> float:
            sure = 0.0 if (prompt, response) in ((right, rebuilt), again) else -10.0
            return sure if log_prob is None else log_prob

        return Saying(lambda prompt, _: rebuilt if prompt == right else "I cannot tell.", log_prob=likely, **how)

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
        example = row(name, cell, hidden=hidden, labelled=labelled)
        return Case(Scorer(Config.load(folder / "cellduality.json")), TASKS[name], example, vocabulary)

    return make
