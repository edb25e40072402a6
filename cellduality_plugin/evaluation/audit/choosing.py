"""From the findings on a task to what it is trained with, or that it is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cellduality_plugin.config import Config
from cellduality_plugin.evaluation.audit.contenders import Contender
from cellduality_plugin.evaluation.audit.statistics import mean_over_cells
from cellduality_plugin.rewards import get_reward

AS_CHEAP = 1.25
"""A contender that takes up to this times the tokens of another is as cheap: prompts differ in length by less."""


@dataclass(frozen=True)
class Choice:
    """What a task is trained with.

    Parameters
    ----------
    contender
        None if the task stays out.
    why
        In plain words.
    """

    contender: Contender | None
    why: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        title = "" if self.contender is None else self.contender.title
        return {"reward": title, "contender": self.contender and asdict(self.contender), "why": self.why}


def choices(content: Mapping[str, Any], config: Config) -> dict[str, Choice]:
    """Return what each task of ``config`` is trained with by an audit's findings; see :func:`choose`.

    A task that could not be audited, because no answers of known worth are there, keeps what it has. A reward that
    needs the true answers of rows to be trained on is no choice.
    """
    how = {name: content["settings"][name] for name in ("seed", "resamples")}
    found: dict[str, Choice] = {}
    for name, task in config.tasks.items():
        findings = [each for each in content["findings"] if each["task"] == name]
        fit = [each for each in findings if not get_reward(each["contender"]["reward"], config.folder).needs_gold]
        kept = Choice(Contender(task.reward, task.hidden, task.traces), "as configured: it could not be audited")
        found[name] = choose(fit, **how) if findings else kept
    return found


def choose(findings: Sequence[Mapping[str, Any]], *, seed: int, resamples: int) -> Choice:
    """Return the contender that a task is trained with.

    Of those graded ``agrees`` the one whose score is highest: how right the group's votes times reward are, or how true
    the best paid cell of a group is. A contender whose score cannot be told from it (the
    95 % interval of the paired difference over cells holds 0) is preferred if it asks the policy's own dual and the
    best does not; then one that takes fewer tokens (by more than :data:`AS_CHEAP`); then the one of higher score.

    Parameters
    ----------
    findings
        All contenders of one task, on the same cells.
    seed, resamples
        Of the bootstrap.
    """
    fit = [found for found in findings if found["verdict"]["grade"] == "agrees"]
    if not fit:
        grades = Counter(found["verdict"]["grade"] for found in findings)
        told = ", ".join(f"{count} {grade}" for grade, count in grades.items())
        return Choice(None, f"no reward agrees with the truth ({told or 'none was audited'})")
    best = max(fit, key=_score)

    def near(found: Mapping[str, Any]) -> bool:
        pairs = zip(best["score_of_cells"], found["score_of_cells"], strict=True)
        apart = [ours - theirs for ours, theirs in pairs if None not in (ours, theirs)]
        interval = mean_over_cells(apart, seed=seed, resamples=resamples).interval
        return found is best or interval is None or interval[0] <= 0

    among = [found for found in fit if near(found)]
    own = [found for found in among if found["cost"]["requests"]] or among
    least = min(map(_tokens, own))
    picked = max((found for found in own if _tokens(found) <= AS_CHEAP * least), key=_score)
    why = picked["verdict"]["words"]
    if picked is not best:
        virtue = "asks the policy's own dual" if not best["cost"]["requests"] else "takes fewer tokens"
        why += (
            f"; {best['reward']} scores {_score(best):.3f} to {_score(picked):.3f}, within the noise: this one {virtue}"
        )
    return Choice(Contender(**picked["contender"]), why)


def _score(found: Mapping[str, Any]) -> float:
    known = [value for value in found["score_of_cells"] if value is not None]
    return float(sum(known) / len(known))


def _tokens(found: Mapping[str, Any]) -> float:
    return float(found["cost"]["prefilled"] + found["cost"]["decoded"])
