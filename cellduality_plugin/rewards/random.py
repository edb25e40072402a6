"""A number that says nothing, for comparison."""

from __future__ import annotations

from cellduality_plugin.duals import Dual
from cellduality_plugin.examples import Value
from cellduality_plugin.rewards.base import Reward, Verdict, reward
from cellduality_plugin.seeds import request_seed


@reward("random")
class RandomReward(Reward):
    """A number that says nothing: even in [0, 1), by a hash of the row and the answer, the same on every machine."""

    asks_dual = False

    async def judge(self, answer: Value, dual: Dual) -> Verdict:
        return Verdict(request_seed("random", dual.example.id, answer) / 2**31)
