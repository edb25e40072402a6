"""A reward that asks nobody: what a step costs without any dual."""

from cellduality_plugin.duals import Dual
from cellduality_plugin.examples import Value
from cellduality_plugin.rewards import Reward, Verdict


class Constant(Reward):
    """Half of the full reward, whatever the answer."""

    async def judge(self, answer: Value, dual: Dual) -> Verdict:
        """Return one half."""
        return Verdict(0.5)
