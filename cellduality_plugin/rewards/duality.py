"""Generate the reconstruction and compare it: the reward of the paper."""

from __future__ import annotations

from dataclasses import dataclass

from cellduality_plugin.duals import Dual
from cellduality_plugin.examples import Value
from cellduality_plugin.rewards.base import REWARDS, Reward, Verdict, check_comparison, reward
from cellduality_plugin.similarity import COMPARISONS
from cellduality_plugin.tasks import DualTask


@reward("duality")
@dataclass(frozen=True)
class DualityReward(Reward):
    """Generate the reconstruction, parse it, compare it: r = similarity(x_u, x_u_hat), section 3.4.1.

    The mean over the draws, if the configuration has more than one. ``comparison`` is a name in
    :data:`cellduality_plugin.similarity.COMPARISONS`; None for the pair's own similarity.
    """

    comparison: str | None = None
    audited: bool = True

    def check(self, task: DualTask) -> None:
        check_comparison(self.comparison, task.unknown, task)

    async def judge(self, answer: Value, dual: Dual) -> Verdict:
        compare = COMPARISONS[self.comparison] if self.comparison else dual.task.similarity
        draws = [
            Verdict(compare(dual.example.unknown, read.value)) if read.value is not None else Verdict.none(read.failure)
            for read in await dual.rebuilt(answer)
        ]
        return Verdict.mean(draws, [1.0] * len(draws))


# "exact" and "rwjs" are what pairs compare by themselves.
REWARDS.update({f"duality-{name}": DualityReward(name, name not in ("exact", "rwjs")) for name in COMPARISONS})
