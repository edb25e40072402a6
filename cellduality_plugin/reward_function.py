"""Dual rewards as a plain function of texts, for trainers that take one, such as TRL's ``reward_funcs``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from cellduality_plugin.config import Config
from cellduality_plugin.policies.base import Policy
from cellduality_plugin.scoring import Score, Scorer

Completion: TypeAlias = "str | Sequence[Mapping[str, Any]]"
"""A response as text, or as the messages of its turn, of which the last counts."""


class DualReward:
    """Rewards of rollouts, in [0, 1]; those of one row are a group and share what is asked of the policy.

    ``config`` is that of the prepared data; the dual is played by ``policy``: a
    :class:`~cellduality_plugin.policies.local.LocalPolicy` over the model in training, or an
    :class:`~cellduality_plugin.policies.endpoint.EndpointPolicy`.
    """

    __name__ = "cellduality"  # TRL names its logs by it

    def __init__(self, config: Config, policy: Policy) -> None:
        self._scorer, self._policy = Scorer(config), policy

    async def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Completion], label: Sequence[str], **columns: Any
    ) -> list[float]:
        """Return the reward of each completion; ``label`` is the column of the RL rows, or a CellDualityError."""
        return [score.reward for score in await self.scores(completions, label)]

    async def scores(self, completions: Sequence[Completion], label: Sequence[str]) -> list[Score]:
        """Return what each reward is made of."""
        members: dict[str, list[int]] = {}
        for place, row in enumerate(label):
            members.setdefault(row, []).append(place)
        texts = [each if isinstance(each, str) else str(each[-1]["content"]) for each in completions]
        groups = [
            self._scorer.score_all([texts[place] for place in places], self._scorer.group(row), self._policy)
            for row, places in members.items()
        ]
        found = zip(members.values(), await asyncio.gather(*groups), strict=True)
        by_place = {place: score for places, scores in found for place, score in zip(places, scores, strict=True)}
        return [by_place[place] for place in range(len(label))]
