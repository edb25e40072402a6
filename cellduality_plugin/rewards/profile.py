"""How likely a cell is under class profiles, in place of the dual."""

from __future__ import annotations

from cellduality_plugin.duals import Dual
from cellduality_plugin.examples import Value
from cellduality_plugin.parsing import Genes
from cellduality_plugin.rewards.base import LabelScores, refusal, reward, scored_kind
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.tasks.base import LabelTask


@reward("profile")
class ProfileReward(LabelScores):
    """Asks no model: how likely a cell is under the class profile of each label (:mod:`cellduality_plugin.profiles`).

    Of a task that names a label of a cell it is the whole cell, and the label is the answer; of one that writes a cell
    it is the answer, and the label is the condition. A dual that does not move with the policy. Not in the paper.
    """

    audited = True
    needs_profiles = True
    asks_dual = False

    def check(self, task: DualTask) -> None:
        super().check(task)
        if not isinstance(task, LabelTask) and not isinstance(task.answer, Genes):
            what = f"a profile tells how likely a cell is, and {task.name} is about none"
            raise refusal(what, task, "needs-cell", "use it for tasks that name a label of a cell, or write one")

    async def log_scores(self, answer: Value, dual: Dual) -> tuple[dict[str, float], str]:
        task, example = dual.task, dual.example
        assert dual.profiles is not None  # Config.load_rewards() refuses it before a run
        kind, control = scored_kind(task), example.known.get("control", ())
        if isinstance(task, LabelTask):
            cell, label, labels = task.whole(example), str(answer), dual.rivals(answer)
        else:
            cell, label, labels = tuple(answer), str(example.unknown), dual.choices(kind, example.unknown)
        found = dual.profiles.log_scores(kind, cell, control)
        return {name: found[name] for name in labels}, label
