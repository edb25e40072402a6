"""Signs that a run goes wrong, read off its metrics while it runs: each is told once, with what to do about it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TypeAlias

from cellduality_plugin.readings import readings

Readings: TypeAlias = Mapping[str, float]


@dataclass(frozen=True)
class AlarmSettings:
    """When an alarm rings. Defaults are meant to be silent in a healthy run, not to find every bad one.

    Parameters
    ----------
    window
        Steps whose mean counts: the reward of a single step of some dozen prompts moves by more than any drift.
        What drifts is compared with the first so many steps of the run, so that a slow drift is seen, too.
    consistency_rise
        How much the mean similarity of what could be judged has to rise, in absolute terms: less is what training is
        for.
    validity_fall, entropy_fall
        The share of its first value that validity, or the entropy of a group's labels, has lost. Validity should never
        fall; entropy does fall in a policy that becomes sure of itself, so it must have lost most of it.
    zero_variance
        Share of groups without spread in every step of a window: these teach nothing.
    failures, truncated
        Share of duals that gave no verdict, and of rollouts cut at their length, in every step of a window: both earn
        0 for no fault of the answer. At one in five, most groups of eight have one whose low reward is noise.
    copy_rise, leak_rise
        How much the copying of genes that were shown, or the naming of what is hidden, has to rise, in absolute terms.
    """

    window: int = 5
    consistency_rise: float = 0.05
    validity_fall: float = 0.1
    entropy_fall: float = 0.6
    zero_variance: float = 0.8
    failures: float = 0.2
    truncated: float = 0.2
    copy_rise: float = 0.2
    leak_rise: float = 0.1


@dataclass(frozen=True)
class Alarm:
    """What was seen, at which step, and what to do."""

    name: str
    step: int
    what: str
    hint: str

    def __str__(self) -> str:
        return f"ALARM {self.name} at step {self.step}: {self.what}; {self.hint}"

    def to_row(self) -> dict[str, str | int]:
        """Return the alarm as a JSON object."""
        return asdict(self)


@dataclass
class Watch:
    """The steps of a run, fed in order. It keeps the first and the last few of them.

    Examples
    --------
    >>> watch = Watch(AlarmSettings(window=2))
    >>> [str(alarm) for step in (1, 2, 3) for alarm in watch.step(step, {"dual_truncated": 0.5})]
    ['ALARM truncation at step 2: 0.50 of the rollouts are cut at their length, over 2 steps; raise ...']
    """

    settings: AlarmSettings = field(default_factory=AlarmSettings)
    told: set[str] = field(default_factory=set)
    first: list[Readings] = field(default_factory=list)
    last: deque[Readings] = field(default_factory=deque)

    def step(self, step: int, metrics: Mapping[str, float]) -> list[Alarm]:
        """Return the alarms that ring at ``step`` for the first time.

        Parameters
        ----------
        metrics
            The step's metrics as they are logged.
        """
        read = readings(metrics)
        if len(self.first) < self.settings.window:
            self.first.append(read)
        self.last.append(read)
        if len(self.last) > self.settings.window:
            self.last.popleft()
        if len(self.last) < self.settings.window:
            return []
        seen = _Seen(self.first, self.last, self.settings)
        found = []
        for name, (sign, hint) in SIGNS.items():
            what = "" if name in self.told else sign(seen)
            if what:
                self.told.add(name)
                found.append(Alarm(name, step, what, hint))
        return found


def alarms(steps: Iterable[tuple[int, Mapping[str, float]]], settings: AlarmSettings | None = None) -> list[Alarm]:
    """Return the alarms of a run in the order in which they ring, each once.

    Parameters
    ----------
    steps
        (step, its metrics as they are logged), ascending.
    """
    watch = Watch(settings or AlarmSettings())
    return [alarm for step, metrics in steps for alarm in watch.step(step, metrics)]


def steps_of(curves: Mapping[str, Sequence[tuple[int, float]]]) -> list[tuple[int, dict[str, float]]]:
    """Return (step, {metric: value}) of curves, ascending.

    Examples
    --------
    >>> steps_of({"reward": [(1, 0.5), (2, 0.7)], "kl": [(2, 0.1)]})
    [(1, {'reward': 0.5}), (2, {'reward': 0.7, 'kl': 0.1})]
    """
    steps: dict[int, dict[str, float]] = {}
    for name, points in curves.items():
        for step, value in points:
            steps.setdefault(step, {})[name] = value
    return sorted(steps.items())


@dataclass(frozen=True)
class _Seen:
    """The first and the last window of a run; they overlap while the run is young."""

    first: Sequence[Readings]
    last: Sequence[Readings]
    settings: AlarmSettings

    def now(self, name: str) -> float:
        """Return the mean of the last window; NaN, which is neither above nor below anything, if it was not told."""
        return _mean(self.last, name)

    def rise(self, name: str) -> float:
        return _mean(self.last, name) - _mean(self.first, name)

    def fall(self, name: str) -> float:
        """Return the share of its first value that was lost; NaN if that was 0."""
        before = _mean(self.first, name)
        return 1 - _mean(self.last, name) / before if before else math.nan

    def lasting(self, name: str, bound: float, what: str) -> str:
        """Return what to say if every step of the last window is above ``bound``; one bad step is none."""
        if not all(step.get(name, math.nan) > bound for step in self.last):
            return ""
        return f"{self.now(name):.2f} {what}, over {len(self.last)} steps"


def _mean(steps: Sequence[Readings], name: str) -> float:
    """Return the mean over the steps that tell of it, if most of them do."""
    told = [step[name] for step in steps if name in step]
    # sum, not fsum, which raises where the sum overflows: a diverged run logs any number.
    return sum(told) / len(told) if 2 * len(told) > len(steps) and all(map(math.isfinite, told)) else math.nan


def _hollow(seen: _Seen) -> str:
    rise = seen.rise("dual_consistency")
    if not rise > seen.settings.consistency_rise:
        return ""
    falls = {
        "validity": (seen.fall("dual_validity"), seen.settings.validity_fall),
        "label entropy": (seen.fall("dual_label_entropy"), seen.settings.entropy_fall),
    }
    fallen = [f"{name} fell by {fall:.0%}" for name, (fall, bound) in falls.items() if fall > bound]
    return f"consistency rose by {rise:.2f} while {' and '.join(fallen)}" if fallen else ""


def _flat(seen: _Seen) -> str:
    return seen.lasting("dual_zero_variance", seen.settings.zero_variance, "of the groups have no spread")


def _failing(seen: _Seen) -> str:
    told = seen.lasting("dual_failures", seen.settings.failures, "of the duals give no verdict")
    causes = {name.partition("/")[2] for step in seen.last for name in step if name.startswith("dual_failed/")}
    worst = max(sorted(causes), key=lambda cause: seen.now(f"dual_failed/{cause}"), default="")
    return f"{told}, most of them {worst}" if told and worst else told


def _cut(seen: _Seen) -> str:
    return seen.lasting("dual_truncated", seen.settings.truncated, "of the rollouts are cut at their length")


def _copying(seen: _Seen) -> str:
    rises = {what: seen.rise(f"dual_copied/{what}") for what in ("response", "rebuilt")}
    told = [
        f"copying in the {what} rose by {rise:.2f}" for what, rise in rises.items() if rise > seen.settings.copy_rise
    ]
    return " and ".join(told)


def _leaking(seen: _Seen) -> str:
    rises = {what: seen.rise(f"dual_leak/{what}") for what in ("answer", "trace")}
    told = [
        f"naming it in the {what} rose by {rise:.2f}" for what, rise in rises.items() if rise > seen.settings.leak_rise
    ]
    return f"what is hidden from the dual is named: {' and '.join(told)}" if told else ""


SIGNS: dict[str, tuple[Callable[[_Seen], str], str]] = {
    "hollow_consistency": (
        _hollow,
        "the policy may be agreeing with itself instead of being right: look at the rollouts, stop, raise the KL "
        "weight (KL) or lower the learning rate (ACTOR_LR)",
    ),
    "zero_variance": (
        _flat,
        "these teach nothing: raise TEMPERATURE, take a graded reward (likelihood, posterior), or lower minimum_spread",
    ),
    "dual_failures": (
        _failing,
        "timeout: raise dual.timeout_seconds; prompt_too_long: raise MAX_LEN; no_answer, unclosed, empty: teach the "
        "dual in SFT (SFT_DIRECTIONS=both), or take the likelihood",
    ),
    "truncation": (_cut, "raise MAX_NEW_TOKENS, or shorten the traces SFT learns from"),
    "copying": (
        _copying,
        "the easiest genes to list are those that were shown: look at the rollouts, take a reward that does not "
        "decode the dual (likelihood, posterior)",
    ),
    "leaking": (
        _leaking,
        "nothing but the parsed answer reaches the dual, so this earns nothing; it says that the policy tries: look at "
        "the rollouts",
    ),
}
"""Name -> (what is seen, empty if nothing is; what to do)."""
