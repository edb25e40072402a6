"""In plain words: what training on a reward is expected to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Grade: TypeAlias = Literal["agrees", "unclear", "harmful", "no signal"]

FLAT_GROUPS = 0.9
"""Share of groups without spread from which on there is no signal: nine of ten rollouts would teach nothing."""

WIDE_INTERVAL = 0.3
"""Width of an AUC's interval past which one that holds 0.5 says that the cells are too few, and not that the reward is
blind: about what fewer than ten cells give."""


@dataclass(frozen=True)
class Judgement:
    """The verdict on a reward of a task."""

    grade: Grade
    words: str


def verdict(finding: Mapping[str, Any]) -> Judgement:
    """Return what the numbers of one (task, reward) mean.

    In this order, with 95 % intervals over cells:

    1. At least :data:`FLAT_GROUPS` of the groups without spread: no signal.
    2. The interval of the AUC (true answers against wrong ones) holds 0.5: no signal, or unclear if it is wider than
       :data:`WIDE_INTERVAL`. All of it below: harmful.
    3. Labels: the reward's own choice against the policy's, by the paired difference of their accuracies. All of it
       below 0: harmful, unless within the policy's own groups the best paid answer is truer than the average one beyond
       doubt; then unclear. Otherwise the reward agrees.
    4. Gene lists: the truth of the best paid answer of a group less the group's mean. All of it below 0: harmful. It
       holds 0: unclear. All of it above: the reward agrees.

    Parameters
    ----------
    finding
        As :func:`cellduality_plugin.evaluation.audit.findings.finding` makes it.
    """
    flat, auc = finding["zero_variance"]["value"], finding["auc"]
    if flat is not None and flat >= FLAT_GROUPS:
        alike = finding["same_answers"]["value"]
        why = f" (in {_percent(alike)} the policy gives one answer only)" if alike else ""
        return Judgement("no signal", f"no signal: zero-variance groups {_percent(flat)}{why}")
    if auc["value"] is None:
        return Judgement("no signal", "no signal: there was no wrong answer to tell the true one from")
    low, high = auc["interval"]
    told = f"AUC {auc['value']:.2f}, {low:.2f} to {high:.2f}"
    if high < 0.5:
        return Judgement("harmful", f"prefers wrong answers ({told}): training on this reward is expected to do harm")
    if low <= 0.5 and high - low > WIDE_INTERVAL:
        return Judgement("unclear", f"too few cells to tell ({told}): audit more")
    if low <= 0.5:
        return Judgement("no signal", f"no signal: does not tell the true answer from wrong ones ({told})")
    return _labels(finding, told) if "choice_accuracy" in finding else _lists(finding, told)


def _labels(finding: Mapping[str, Any], told: str) -> Judgement:
    own, policy = finding["choice_accuracy"]["value"], finding["policy_accuracy"]["value"]
    against = f"the reward's own choice is right for {_percent(own)} of the cells, the policy's for {_percent(policy)}"
    if finding["choice_gain"]["interval"][1] >= 0:
        more = finding["choice_gain"]["interval"][0] > 0
        outlook = "training on it is expected to raise accuracy" if more else "about as good as the policy's own"
        return Judgement("agrees", f"agrees with the truth ({told}); {against}: {outlook}")
    if _above_zero(finding["group_gain"]):
        return Judgement(
            "unclear",
            f"{against}, yet among the policy's own answers it pays the right ones more "
            f"({_percent(finding['best_of_group']['value'])} of the best paid are right, "
            f"{_percent(finding['mean_of_group']['value'])} of all): train in few steps and watch accuracy",
        )
    return Judgement("harmful", f"{against}: training on this reward is expected to lower accuracy")


def _lists(finding: Mapping[str, Any], told: str) -> Judgement:
    gain, follows = finding["group_gain"], finding["group_agreement"]["value"]
    within = "" if follows is None else f"within groups its correlation with {finding['truth']} is {follows:.2f}"
    if gain["value"] is None:
        return Judgement("unclear", f"tells real cells of the condition from others ({told}); {within or 'no group'}")
    if gain["interval"][1] < 0:
        return Judgement("harmful", f"pays the less true of the policy's own answers more ({told}; {within})")
    if not _above_zero(gain):
        return Judgement(
            "unclear",
            f"tells real cells of the condition from others ({told}), but among the policy's own answers it does not "
            f"follow the truth{f' ({within})' if within else ''}: expect what the dual knows again, not truer cells",
        )
    return Judgement("agrees", f"agrees with the truth ({told}; {within})")


def _above_zero(estimate: Mapping[str, Any]) -> bool:
    return estimate["value"] is not None and estimate["interval"][0] > 0


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
