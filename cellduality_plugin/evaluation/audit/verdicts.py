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

WIDE_GAIN = 0.1
"""Width of a gain's interval past which one that holds 0 says that the cells are too few: a gain of a twentieth, which
would be worth a run, could not be seen."""


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
    3. Labels: the votes of the policy's own answers times their rewards, which training leads to, against their
       majority, by the paired difference of accuracies. All of it below 0: harmful.
    4. The truth of the best paid answer of a group less the group's mean. All of it below 0: harmful.
    5. Either of these gains all above 0: the reward agrees. Else it is unclear.

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
    return _gains(finding, told)


def _gains(finding: Mapping[str, Any], told: str) -> Judgement:
    claims = {"product_gain": _voted, "group_gain": _paid}
    known = [
        (finding[name]["interval"], said(finding))
        for name, said in claims.items()
        if name in finding and finding[name]["value"] is not None
    ]
    if not known:
        return Judgement("unclear", f"no answer of the policy could be read, to see what it does among them ({told})")
    for (_, high), words in known:
        if high < 0:
            return Judgement("harmful", f"{words}: training on this reward is expected to do harm")
    if above := [words for (low, _), words in known if low > 0]:
        return Judgement("agrees", f"agrees with the truth ({told}); {'; '.join(above)}")
    seen = "; ".join(words for _, words in known)
    if any(high - low > WIDE_GAIN for (low, high), _ in known):
        return Judgement("unclear", f"too few cells to tell: {seen}: audit more")
    return Judgement("unclear", f"tells true answers from wrong ones ({told}), but not among the policy's own: {seen}")


def _voted(finding: Mapping[str, Any]) -> str:
    right, of_majority = finding["product_accuracy"]["value"], finding["majority_accuracy"]["value"]
    return (
        f"votes times reward name {_percent(right)} of the cells right, the majority {_percent(of_majority)}"
        f"{_interval(finding['product_gain'])}"
    )


def _paid(finding: Mapping[str, Any]) -> str:
    best, mean = _percent(finding["best_of_group"]["value"]), _percent(finding["mean_of_group"]["value"])
    gain = _interval(finding["group_gain"])
    if finding["truth"] == "correct":
        return f"{best} of the best paid of a group are right, {mean} of all{gain}"
    return f"near the best paid cell of a group {best} of real cells are of the right condition, near all {mean}{gain}"


def _interval(gain: Mapping[str, Any]) -> str:
    low, high = (100 * end for end in gain["interval"])
    return f" (gain {low:+.1f} to {high:+.1f})"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
