"""Whether the policy says of the whole cell what it said of a thinned one."""

from __future__ import annotations

from cellduality_plugin.duals import Dual
from cellduality_plugin.examples import Value
from cellduality_plugin.rewards.base import LabelScores, refusal, reward, scored_kind
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.tasks.base import LabelTask


@reward("consistency")
class ConsistencyReward(LabelScores):
    """How sure the policy is of its answer when it is asked the same question about the whole cell.

    For rows whose question shows a cell that lost genes (``data prepare --thin``). Not in the paper.
    """

    asks_dual = False
    asks_again = True
    asks_log_probs = True

    def check(self, task: DualTask) -> None:
        if not isinstance(task, LabelTask):
            what = f"consistency asks for the label of a whole cell, and {task.name} names none"
            raise refusal(what, task, "needs-labels", "use it for tasks that are answered by a label")

    async def log_scores(self, answer: Value, dual: Dual) -> tuple[dict[str, float], str]:
        labels = dual.choices(scored_kind(dual.task), answer)
        found = dict(zip(labels, await dual.answer_log_probs(labels), strict=True))
        return {label: found[label] for label in dual.rivals(answer)}, str(answer)
