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
    """Several rewards of one answer, each with a number. What two of them ask is asked once.

    Parameters
    ----------
    parts
        Rewards and their weights or powers, each above 0.
    """

    def __init__(self, parts: Sequence[tuple[Reward, float]]) -> None:
        self.parts, self.numbers = zip(*parts, strict=True)
        self.needs_gold = any(part.needs_gold for part in self.parts)
        self.needs_profiles = any(part.needs_profiles for part in self.parts)
        self.asks_dual = any(part.asks_dual for part in self.parts)
        self.asks_every_label = any(part.asks_every_label for part in self.parts)
        self.asks_again = any(part.asks_again for part in self.parts)
        self.asks_log_probs = any(part.asks_log_probs for part in self.parts)

    def check(self, task: DualTask) -> None:
        for part in self.parts:
            part.check(task)

    def check_row(self, task: DualTask, example: Example, vocabulary: Vocabulary) -> None:
        for part in self.parts:
            part.check_row(task, example, vocabulary)


class WeightedSum(Combined):
    """The mean of rewards, each by its share: the numbers are divided by their sum."""

    async def judge(self, answer: Value, dual: Dual) -> Verdict:
        """Return the weighted mean of the verdicts; a policy that cannot be asked by one of them fails them all."""
        return Verdict.mean(await asyncio.gather(*(part.judge(answer, dual) for part in self.parts)), self.numbers)


class Product(Combined):
    """The product of rewards, each to its power."""

    async def judge(self, answer: Value, dual: Dual) -> Verdict:
        """Return the product of the verdicts; a part that failed leaves nothing of it."""
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
