"""In plain words: what training on a reward is expected to do, and which reward a task is trained with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cellduality_plugin.config import Config
from cellduality_plugin.evaluation.audit.contenders import Contender
from cellduality_plugin.evaluation.audit.statistics import Bootstrap
from cellduality_plugin.rewards import get_reward

FLAT_GROUPS = 0.9
"""Share of groups without spread from which on there is no signal."""
WIDE_INTERVAL = 0.3
"""Width of an AUC's interval, about what fewer than ten cells give, past which the cells are too few to tell."""
WIDE_GAIN = 0.1
"""The same of a gain: one of a twentieth, which would be worth a run, could not be seen."""
AS_CHEAP = 1.25
"""A contender that takes up to this times the tokens of another is as cheap: prompts differ in length by less."""


def verdict(finding: Mapping[str, Any]) -> dict[str, str]:
    """Return the ``grade`` (agrees, unclear, harmful or no signal) of one (task, reward), and the ``words`` for it.

    In this order, with 95 % intervals over cells:

    1. At least :data:`FLAT_GROUPS` of the groups without spread: no signal.
    2. The interval of the AUC (true answers against wrong ones) holds 0.5: no signal, or unclear if it is wider than
       :data:`WIDE_INTERVAL`. All of it below: harmful.
    3. Labels: the votes of the policy's own answers times their rewards, which training leads to, against their
       majority, by the paired difference of accuracies. All of it below 0: harmful.
    4. The truth of the best paid answer of a group less the group's mean. All of it below 0: harmful.
    5. Either of these gains all above 0: the reward agrees. Else it is unclear.
    """
    return dict(zip(("grade", "words"), _judged(finding), strict=True))


def _judged(finding: Mapping[str, Any]) -> tuple[str, str]:
    flat, auc = finding["zero_variance"]["value"], finding["auc"]
    if flat is not None and flat >= FLAT_GROUPS:
        alike = finding["same_answers"]["value"]
        why = f" (in {_percent(alike)} the policy gives one answer only)" if alike else ""
        return "no signal", f"no signal: zero-variance groups {_percent(flat)}{why}"
    if auc["value"] is None:
        return "no signal", "no signal: there was no wrong answer to tell the true one from"
    low, high = auc["interval"]
    area = f"AUC {auc['value']:.2f}, {low:.2f} to {high:.2f}"
    if high < 0.5:
        return "harmful", f"prefers wrong answers ({area}): training on this reward is expected to do harm"
    if low <= 0.5 and high - low > WIDE_INTERVAL:
        return "unclear", f"too few cells to tell ({area}): audit more"
    if low <= 0.5:
        return "no signal", f"no signal: does not tell the true answer from wrong ones ({area})"
    gains = _gains(finding)
    if not gains:
        return "unclear", f"no answer of the policy could be read, to see what it does among them ({area})"
    for (_, high), words in gains:
        if high < 0:
            return "harmful", f"{words}: training on this reward is expected to do harm"
    if above := [words for (low, _), words in gains if low > 0]:
        return "agrees", f"agrees with the truth ({area}); {'; '.join(above)}"
    seen = "; ".join(words for _, words in gains)
    if any(high - low > WIDE_GAIN for (low, high), _ in gains):
        return "unclear", f"too few cells to tell: {seen}: audit more"
    return "unclear", f"tells true answers from wrong ones ({area}), but not among the policy's own: {seen}"


def _gains(finding: Mapping[str, Any]) -> list[tuple[tuple[float, float], str]]:
    """Return the interval of each gain that is known, with the words for it."""
    words = {
        "product_gain": "votes times reward name {product_accuracy} of the cells right, the majority "
        "{majority_accuracy}",
        "group_gain": "{best_of_group} of the best paid of a group are right, {mean_of_group} of all"
        if finding.get("truth") == "correct"
        else "near the best paid cell of a group {best_of_group} of real cells are of the right condition, "
        "near all {mean_of_group}",
    }
    known = {
        name: each for name, each in finding.items() if isinstance(each, Mapping) and each.get("value") is not None
    }
    shares = {name: _percent(each["value"]) for name, each in known.items()}
    found = []
    for name in filter(known.__contains__, words):
        low, high = known[name]["interval"]
        found.append(((low, high), f"{words[name].format(**shares)} (gain {100 * low:+.1f} to {100 * high:+.1f})"))
    return found


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


@dataclass(frozen=True)
class Choice:
    """What a task is trained with, None if it stays out, and why in plain words."""

    contender: Contender | None
    why: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        title = self.contender.title if self.contender else ""
        return {"reward": title, "contender": self.contender and asdict(self.contender), "why": self.why}


def choices(content: Mapping[str, Any], config: Config) -> dict[str, Choice]:
    """Return what each task of ``config`` is trained with by an audit's findings; see :func:`choose`.

    A task that could not be audited keeps what it has. A reward that needs the true answers of rows is no choice.
    """
    how = Bootstrap(content["settings"]["seed"], content["settings"]["resamples"])
    chosen: dict[str, Choice] = {}
    for name, task in config.tasks.items():
        found = [each for each in content["findings"] if each["task"] == name]
        fit = [each for each in found if not get_reward(each["contender"]["reward"], config.folder).needs_gold]
        kept = Choice(Contender(task.reward, task.hidden, task.traces), "as configured: it could not be audited")
        chosen[name] = choose(fit, how) if found else kept
    return chosen


def choose(findings: Sequence[Mapping[str, Any]], how: Bootstrap) -> Choice:
    """Return the contender that a task is trained with: of those graded ``agrees`` the one of the highest score.

    The score is how right the group's votes times reward are, or how true the best paid cell of a group is. A contender
    whose score does not differ clearly (the 95 % interval of the paired difference over cells holds 0) is preferred if
    it asks the policy's own dual and the best does not; then one that takes fewer tokens (by more than
    :data:`AS_CHEAP`); then the one of higher score. ``findings`` are of one task, on the same cells.
    """
    fit = [found for found in findings if found["verdict"]["grade"] == "agrees"]
    if not fit:
        grades = Counter(found["verdict"]["grade"] for found in findings)
        counts = ", ".join(f"{count} {grade}" for grade, count in grades.items())
        return Choice(None, f"no reward agrees with the truth ({counts or 'none was audited'})")
    best = max(fit, key=_score)

    def near(found: Mapping[str, Any]) -> bool:
        gaps = np.subtract(*(np.array(each["score_of_cells"], dtype=float) for each in (best, found)))
        interval = how.mean(gaps)["interval"]
        return found is best or interval is None or interval[0] <= 0

    among = [found for found in fit if near(found)]
    own = [found for found in among if found["cost"]["requests"]] or among
    least = min(map(_tokens, own))
    picked = max((found for found in own if _tokens(found) <= AS_CHEAP * least), key=_score)
    why = picked["verdict"]["words"]
    if picked is not best:
        virtue = "asks the policy's own dual" if not best["cost"]["requests"] else "takes fewer tokens"
        scores = f"{best['reward']} scores {_score(best):.3f} to {_score(picked):.3f}, within the noise"
        why += f"; {scores}: this one {virtue}"
    return Choice(Contender(**picked["contender"]), why)


def _score(found: Mapping[str, Any]) -> float:
    return float(np.nanmean(np.array(found["score_of_cells"], dtype=float)))


def _tokens(found: Mapping[str, Any]) -> float:
    return float(found["cost"]["prefilled"] + found["cost"]["decoded"])
