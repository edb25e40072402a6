"""A number that says nothing, for comparison."""

from __future__ import annotations

from cellduality_plugin.duals import Dual
from cellduality_plugin.examples import Value
from cellduality_plugin.rewards.base import Reward, Verdict, reward
from cellduality_plugin.seeds import request_seed


@reward("random")
class RandomReward(Reward):
    """A number that says nothing: even in [0, 1), by a hash of the row and the answer. For comparison: what training
    gains by it, it does not gain by judging."""

    asks_dual = False

    async def judge(self, answer: Value, dual: Dual) -> Verdict:
        """Return the same number for the same answer to the same row, on every machine."""
        return Verdict(request_seed("random", dual.example.id, answer) / 2**31)
