"""Signs that a run goes wrong, read off its metrics while it runs: each is reported once, with what to do about it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from cellduality_plugin.ratios import with_ratios


@dataclass(frozen=True)
class AlarmSettings:
    """When an alarm is raised. The defaults are meant to be silent in a healthy run, not to find every bad one."""

    window: int = 5  # steps whose mean counts; a drift is measured against the first so many steps of the run
    consistency_rise: float = 0.05  # of the mean similarity of what could be judged, in absolute terms
    validity_fall: float = 0.1  # the share of its first value that validity has lost, which should never fall
    entropy_fall: float = 0.6  # the same of a group's labels; it does fall in a policy that becomes sure of itself
    # Shares in every step of a window: of groups without spread, which teach nothing; of duals without a verdict and of
    # rollouts cut at their length (at one in five most groups of eight have one whose low reward is noise).
    zero_variance: float = 0.8
    failures: float = 0.2
    truncated: float = 0.2
    readable: float = 0.2  # share of answers that could be read, below which nothing can be learnt
    copy_rise: float = 0.2  # of the genes copied from what was shown
    leak_rise: float = 0.1  # of what is hidden being named


@dataclass(frozen=True)
class Alarm:
    """What was seen, at which step, and what to do."""

    name: str
    step: int
    what: str
    hint: str

    def __str__(self) -> str:
        return f"ALARM {self.name} at step {self.step}: {self.what}; {self.hint}"


class Watch:
    """The first and the last few steps of a run, which is fed in order.

    Examples
    --------
    >>> watch = Watch(AlarmSettings(window=2))
    >>> [str(alarm) for step in (1, 2, 3) for alarm in watch.step(step, {"dual_truncated": 0.5})]
    ['ALARM truncation at step 2: 0.50 of the rollouts are cut at their length, over 2 steps; raise ...']
    """

    def __init__(self, settings: AlarmSettings | None = None) -> None:
        self.settings = settings or AlarmSettings()
        self.first: list[Mapping[str, float]] = []
        self.last: deque[Mapping[str, float]] = deque(maxlen=self.settings.window)
        self._raised: set[str] = set()

    def step(self, step: int, metrics: Mapping[str, float]) -> list[Alarm]:
        """Return the alarms that are raised at ``step`` for the first time, by its metrics as they are logged."""
        self.last.append(with_ratios(metrics))
        if len(self.first) < self.settings.window:
            self.first.append(self.last[-1])
        if len(self.last) < self.settings.window:
            return []
        seen = {name: sign(self) for name, (sign, _) in SIGNS.items() if name not in self._raised}
        found = [Alarm(name, step, what, SIGNS[name][1]) for name, what in seen.items() if what]
        self._raised |= {alarm.name for alarm in found}
        return found

    def now(self, name: str) -> float:
        """Return the mean of the last window; NaN, which is neither above nor below anything, if most steps lack it."""
        return _mean(self.last, name)

    def rise(self, name: str) -> float:
        return self.now(name) - _mean(self.first, name)

    def fall(self, name: str) -> float:
        """Return the share of its first value that was lost; NaN if that was 0."""
        before = _mean(self.first, name)
        return 1 - self.now(name) / before if before else math.nan

    def lasting(self, name: str, bound: float, what: str) -> str:
        """Return what to say if every step of the last window is above ``bound``; one bad step is none."""
        if not all(step.get(name, math.nan) > bound for step in self.last):
            return ""
        return f"{self.now(name):.2f} {what}, over {len(self.last)} steps"

    def rising(self, names: Mapping[str, str], bound: float) -> str:
        """Return what to say of the metrics {name: what it is} that rose by more than ``bound``."""
        rises = {what: self.rise(name) for name, what in names.items()}
        return " and ".join(f"{what} rose by {rise:.2f}" for what, rise in rises.items() if rise > bound)


def alarms(steps: Iterable[tuple[int, Mapping[str, float]]], settings: AlarmSettings | None = None) -> list[Alarm]:
    """Return the alarms of a run, each once, by its steps: (step, metrics as logged), ascending."""
    watch = Watch(settings)
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


def _mean(steps: Iterable[Mapping[str, float]], name: str) -> float:
    found = [step.get(name) for step in steps]
    known = [value for value in found if value is not None]
    # sum, not fsum, which raises where the sum overflows: a diverged run logs any number.
    return sum(known) / len(known) if 2 * len(known) > len(found) and all(map(math.isfinite, known)) else math.nan


def _hollow(watch: Watch) -> str:
    rise = watch.rise("dual_consistency")
    falls = {
        "validity": (watch.fall("dual_validity"), watch.settings.validity_fall),
        "label entropy": (watch.fall("dual_label_entropy"), watch.settings.entropy_fall),
    }
    fallen = [f"{name} fell by {fall:.0%}" for name, (fall, bound) in falls.items() if fall > bound]
    hollow = fallen and rise > watch.settings.consistency_rise
    return f"consistency rose by {rise:.2f} while {' and '.join(fallen)}" if hollow else ""


def _failing(watch: Watch) -> str:
    failing = watch.lasting("dual_failures", watch.settings.failures, "of the duals give no verdict")
    causes = {name.partition("/")[2] for step in watch.last for name in step if name.startswith("dual_failed/")}
    worst = max(sorted(causes), key=lambda cause: watch.now(f"dual_failed/{cause}"), default="")
    return f"{failing}, most of them {worst}" if failing and worst else failing


def _leaking(watch: Watch) -> str:
    places = {"dual_leak/answer": "naming it in the answer", "dual_leak/trace": "naming it in the trace"}
    rising = watch.rising(places, watch.settings.leak_rise)
    return rising and f"what is hidden from the dual is named: {rising}"


def _unreadable(watch: Watch) -> str:
    bound = watch.settings.readable
    if not all(step.get("dual_answer_parsed", math.nan) < bound for step in watch.last):
        return ""
    return f"{watch.now('dual_answer_parsed'):.2f} of the answers can be read, over {len(watch.last)} steps"


def _flat(watch: Watch) -> str:
    if _unreadable(watch):  # then groups are flat at 0, whatever the temperature
        return ""
    return watch.lasting("dual_zero_variance", watch.settings.zero_variance, "of the groups have no spread")


SIGNS: dict[str, tuple[Callable[[Watch], str], str]] = {
    "hollow_consistency": (
        _hollow,
        "the policy may be agreeing with itself instead of being right: look at the rollouts, stop, raise the KL "
        "weight (KL) or lower the learning rate (ACTOR_LR)",
    ),
    "zero_variance": (
        _flat,
        "these teach nothing: raise TEMPERATURE, take a graded reward (likelihood, posterior), or lower minimum_spread",
    ),
    "unreadable": (
        _unreadable,
        "no answer, no reward: look at the rollouts; teach the form in SFT, raise MAX_NEW_TOKENS if they are cut, and "
        "see that the chat template and the end token are those of SFT",
    ),
    "dual_failures": (
        _failing,
        "timeout: raise dual.timeout_seconds; prompt_too_long: raise MAX_LEN; no_answer, unclosed, empty: teach the "
        "dual in SFT (SFT_DIRECTIONS=both), or take the likelihood",
    ),
    "truncation": (
        lambda watch: watch.lasting(
            "dual_truncated", watch.settings.truncated, "of the rollouts are cut at their length"
        ),
        "raise MAX_NEW_TOKENS, or shorten the traces SFT learns from",
    ),
    "copying": (
        lambda watch: watch.rising(
            {f"dual_copied/{place}": f"copying in the {place}" for place in ("response", "rebuilt")},
            watch.settings.copy_rise,
        ),
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
