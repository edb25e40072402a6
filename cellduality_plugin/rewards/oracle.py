"""The ground truth, for comparison."""

from __future__ import annotations

from dataclasses import dataclass

from cellduality_plugin.duals import Dual
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example, Value
from cellduality_plugin.rewards.base import REWARDS, Reward, Verdict, check_comparison, reward
from cellduality_plugin.similarity import COMPARISONS
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.vocabulary import Vocabulary


@reward("oracle")
@dataclass(frozen=True)
class OracleReward(Reward):
    """The ground truth: r = similarity(y*, y). No model is asked; for comparison, as in the paper's Table 6.

    ``comparison`` is a name in :data:`cellduality_plugin.similarity.COMPARISONS`; None: labels exactly, lists by RWJS.
    """

    comparison: str | None = None
    audited: bool = True
    needs_gold = True
    asks_dual = False

    def check(self, task: DualTask) -> None:
        check_comparison(self.comparison, task.answer, task)

    def check_row(self, task: DualTask, example: Example, vocabulary: Vocabulary) -> None:
        if example.gold is None:
            what, where = "the oracle needs the true answer, and the row holds none", f"row {example.id} of {task.name}"
            hint = f"prepare the data for it (--rewards {task.name}=oracle), or use another reward"
            raise CellDualityError(what, code="needs-gold", where=where, hint=hint)

    async def judge(self, answer: Value, dual: Dual) -> Verdict:
        compare = COMPARISONS[self.comparison] if self.comparison else dual.task.truth
        assert dual.example.gold is not None  # check_row() refuses such a row before it is rolled out
        return Verdict(compare(dual.example.gold, answer))


REWARDS.update({f"oracle-{name}": OracleReward(name, audited=False) for name in COMPARISONS})
