"""What a run logs, read: metrics that are ratios, and signs that it goes wrong, each reported once with what to do.

OpenRLHF only averages, so numerator and denominator of a ratio are logged, and divided here.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

RATIOS: dict[str, tuple[str, str]] = {
    "dual_consistency": ("dual_similarity", "dual_answer_parsed"),
    "dual_copied/rebuilt": ("dual_copied/rebuilt", "dual_copyable/rebuilt"),
    "dual_copied/response": ("dual_copied/response", "dual_copyable/response"),
    "dual_distinct_answers": ("dual_distinct_answers", "dual_groups"),
    "dual_failures": ("dual_failed", "dual_answer_parsed"),
    "dual_label_entropy": ("dual_label_entropy", "dual_label_groups"),
    "dual_repeated_genes": ("dual_repeated_genes", "dual_lists"),
    "dual_success": ("dual_succeeded", "dual_answer_parsed"),
    "dual_time_share": ("dual_seconds", "dual_rollout_seconds"),
    "dual_unknown_genes": ("dual_unknown_genes", "dual_lists"),
    "dual_zero_variance": ("dual_zero_variance", "dual_groups"),
}
"""Ratio -> (numerator, denominator), both as logged."""

BY_TASK: dict[str, str] = {
    "dual_reward": "dual_share",
    "dual_similarity": "dual_share",
    "dual_validity": "dual_share",
    "dual_truth": "dual_truth_share",
}
"""Ratio -> denominator of what is logged by task, as ``KEY/TASK``."""

_DENOMINATORS = {"dual_copyable/rebuilt", "dual_copyable/response", "dual_groups", "dual_label_groups", "dual_lists"}
_STEP = re.compile(r"Global step (\d+): \{(.*)\}")
_PAIR = re.compile(r"'([^']+)': (-?(?:\d[\d.]*(?:e[+-]?\d+)?|inf|nan))", re.IGNORECASE)


def step_metrics(line: str) -> tuple[int, dict[str, float]] | None:
    """Return (step, {metric: value}) of a line in which the trainer logs a step; None of any other line."""
    if not (found := _STEP.search(line)):
        return None
    return int(found[1]), {name: float(value) for name, value in _PAIR.findall(found[2])}


def with_ratios(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of a step, ratios divided, sorted by name; a ratio of 0 / 0 and denominators are left out.

    ``metrics`` are means over the rollouts of a step, as TensorBoard and the trainer's log have them.
    """
    found = {}
    for name in sorted({*metrics, *RATIOS}):
        kind, _, task = name.partition("/")
        over, under = (name, f"{BY_TASK[kind]}/{task}") if task and kind in BY_TASK else RATIOS.get(name, ("", ""))
        if not over:
            if name not in _DENOMINATORS and kind not in BY_TASK.values():
                found[name] = metrics[name]
        elif name in metrics and under not in metrics:
            found[name] = metrics[name]  # logged by a version that had no denominator
        elif over in metrics and metrics.get(under, 0.0) > 0:
            found[name] = metrics[over] / metrics[under]
    return found


WINDOW = 5  # steps whose mean counts; a drift is measured against the first so many steps of the run


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
    """The first and the last few steps of a run, which is fed in order."""

    def __init__(self) -> None:
        self.first: list[Mapping[str, float]] = []
        self.last: deque[Mapping[str, float]] = deque(maxlen=WINDOW)
        self._raised: set[str] = set()

    def step(self, step: int, metrics: Mapping[str, float]) -> list[Alarm]:
        """Return the alarms that are raised at ``step`` for the first time, by its metrics as they are logged."""
        self.last.append(with_ratios(metrics))
        if len(self.first) < WINDOW:
            self.first.append(self.last[-1])
        if len(self.last) < WINDOW:
            return []
        seen = {name: sees(self) for name, (sees, _) in SIGNS.items() if name not in self._raised}
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

    def lasting(self, name: str, bound: float, what: str, *, below: bool = False) -> str:
        """Return what to say if every step of the last window is above ``bound``, or ``below`` it; else nothing."""
        values = [step.get(name, math.nan) for step in self.last]
        lasts = all(value < bound if below else value > bound for value in values)
        return f"{self.now(name):.2f} {what}, over {len(values)} steps" if lasts else ""

    def rising(self, names: Mapping[str, str], bound: float) -> str:
        """Return what to say of the metrics {name: what it is} that rose by more than ``bound``."""
        rises = {what: self.rise(name) for name, what in names.items()}
        return " and ".join(f"{what} rose by {rise:.2f}" for what, rise in rises.items() if rise > bound)


Sees: TypeAlias = Callable[[Watch], str]
SIGNS: dict[str, tuple[Sees, str]] = {}
"""Name -> (what is seen, empty if nothing is; what to do). They are meant to be silent in a healthy run, not to find
every bad one."""


def sign(hint: str) -> Callable[[Sees], Sees]:
    """Register a sign that a run goes wrong under its name, with what to do about it."""

    def register(sees: Sees) -> Sees:
        SIGNS[sees.__name__] = sees, hint
        return sees

    return register


def alarms(steps: Iterable[tuple[int, Mapping[str, float]]]) -> list[Alarm]:
    """Return the alarms of a run, each once, by its steps: (step, metrics as logged), ascending."""
    watch = Watch()
    return [alarm for step, metrics in steps for alarm in watch.step(step, metrics)]


def steps_of(curves: Mapping[str, Sequence[tuple[int, float]]]) -> list[tuple[int, dict[str, float]]]:
    """Return (step, {metric: value}) of curves, ascending."""
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


@sign(
    "the policy may be agreeing with itself instead of being right: look at the rollouts, stop, raise the KL weight "
    "(KL) or lower the learning rate (ACTOR_LR)"
)
def hollow_consistency(watch: Watch) -> str:
    # Validity should never fall; the entropy of a group's labels does in a policy that becomes sure of itself.
    falls = {"validity": ("dual_validity", 0.1), "label entropy": ("dual_label_entropy", 0.6)}
    shares = {what: watch.fall(name) for what, (name, _) in falls.items()}
    fallen = [f"{what} fell by {share:.0%}" for what, share in shares.items() if share > falls[what][1]]
    hollow = fallen and (rise := watch.rise("dual_consistency")) > 0.05
    return f"consistency rose by {rise:.2f} while {' and '.join(fallen)}" if hollow else ""


@sign("these teach nothing: raise TEMPERATURE, take a graded reward (likelihood, posterior), or lower minimum_spread")
def zero_variance(watch: Watch) -> str:
    flat = watch.lasting("dual_zero_variance", 0.8, "of the groups have no spread")
    return "" if unreadable(watch) else flat  # where nothing is read groups are flat at 0, whatever the temperature


@sign(
    "no answer, no reward: look at the rollouts; teach the form in SFT, raise MAX_NEW_TOKENS if they are cut, and see "
    "that the chat template and the end token are those of SFT"
)
def unreadable(watch: Watch) -> str:
    return watch.lasting("dual_answer_parsed", 0.2, "of the answers can be read", below=True)


@sign(
    "timeout: raise dual.timeout_seconds; prompt_too_long: raise MAX_LEN; no_answer, unclosed, empty: teach the dual "
    "in SFT (SFT_DIRECTIONS=both), or take the likelihood"
)
def dual_failures(watch: Watch) -> str:
    failing = watch.lasting("dual_failures", 0.2, "of the duals give no verdict")
    causes = {name.partition("/")[2] for step in watch.last for name in step if name.startswith("dual_failed/")}
    worst = max(sorted(causes), key=lambda cause: watch.now(f"dual_failed/{cause}"), default="")
    return f"{failing}, most of them {worst}" if failing and worst else failing


@sign("raise MAX_NEW_TOKENS, or shorten the traces SFT learns from")
def truncation(watch: Watch) -> str:
    # At one in five most groups of eight have one whose low reward is noise.
    return watch.lasting("dual_truncated", 0.2, "of the rollouts are cut at their length")


@sign(
    "the easiest genes to list are those that were shown: look at the rollouts, take a reward that does not decode the "
    "dual (likelihood, posterior)"
)
def copying(watch: Watch) -> str:
    return watch.rising({f"dual_copied/{place}": f"copying in the {place}" for place in ("response", "rebuilt")}, 0.2)


@sign(
    "nothing but the parsed answer reaches the dual, so this earns nothing; it says that the policy tries: look at the "
    "rollouts"
)
def leaking(watch: Watch) -> str:
    rising = watch.rising({f"dual_leak/{place}": f"naming it in the {place}" for place in ("answer", "trace")}, 0.1)
    return rising and f"what is hidden from the dual is named: {rising}"
