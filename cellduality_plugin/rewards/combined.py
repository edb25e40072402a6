"""Sums and products of rewards."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

from cellduality_plugin.duals import Dual
from cellduality_plugin.examples import Example, Value
from cellduality_plugin.rewards.base import LabelScores, Reward, Verdict
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.vocabulary import Vocabulary


class Combined(Reward):
    """Several rewards of one answer, each with a number above 0. What two of them ask is asked once."""

    def __init__(self, parts: Sequence[tuple[Reward, float]]) -> None:
        self.parts, self.numbers = zip(*parts, strict=True)
        for flag in (name for name, default in vars(Reward).items() if isinstance(default, bool)):
            setattr(self, flag, any(getattr(part, flag) for part in self.parts))

    def check(self, task: DualTask) -> None:
        for part in self.parts:
            part.check(task)

    def check_row(self, task: DualTask, example: Example, vocabulary: Vocabulary) -> None:
        for part in self.parts:
            part.check_row(task, example, vocabulary)


class WeightedSum(Combined):
    """The mean of rewards; the numbers are weights, divided by their sum. A part that cannot be asked fails all."""

    async def judge(self, answer: Value, dual: Dual) -> Verdict:
        return Verdict.mean(await asyncio.gather(*(part.judge(answer, dual) for part in self.parts)), self.numbers)


class Product(Combined):
    """The product of rewards; the numbers are powers. A part that failed leaves nothing of it."""

    async def judge(self, answer: Value, dual: Dual) -> Verdict:
        verdicts = await asyncio.gather(*(part.judge(answer, dual) for part in self.parts))
        similarity = math.prod(v.similarity**power for v, power in zip(verdicts, self.numbers, strict=True))
        failure = next((verdict.failure for verdict in verdicts if verdict.failure), "")
        return Verdict(similarity, failure, max(verdict.failed for verdict in verdicts))


class LabelProduct(Combined, LabelScores):
    r"""The product of label probabilities, each to its power, normalised once: a product of experts.

    .. math:: r = \prod_i p_i(y)^{w_i} \Big/ \sum_{c \in C} \prod_i p_i(c)^{w_i}
    """

    parts: tuple[LabelScores, ...]

    async def log_scores(self, answer: Value, dual: Dual) -> tuple[dict[str, float], str]:
        found = await asyncio.gather(*(part.log_scores(answer, dual) for part in self.parts))
        (first, label), powers = found[0], self.numbers
        return {
            name: math.fsum(power * scores[name] for power, (scores, _) in zip(powers, found, strict=True))
            for name in first
        }, label
