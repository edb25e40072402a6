"""Training curves, from TensorBoard or a training log; and Figure 2 of the paper: rewards by task, beside the truth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.alarms import step_metrics, steps_of, with_ratios
from cellduality_plugin.errors import CellDualityError, needs_extra
from cellduality_plugin.evaluation.plots import save_figure2
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.tasks import TASKS, DualTask

Curves: TypeAlias = dict[str, list[tuple[int, float]]]  # by name: (step, value), steps ascending, one value a step

REWARD, TRUTH = "dual_reward", "dual_truth"
FORMATS = (".svg", ".png", ".pdf")
_FIRST = (
    "reward", "score", "gpt_loss", "loss", "dual_reward", "dual_truth", "dual_similarity", "dual_validity", "kl",
    "response_length", "dual_label_entropy", "dual_zero_variance", "dual_success", "dual_copied",
)  # fmt: skip


def read_curves(source: Path) -> Curves:
    """Return the curves in ``source``; empty if it holds none, a CellDualityError if it is not there.

    It is a folder with TensorBoard event files (searched with its sub-folders), or a training log with lines
    ``Global step N: {...}``. A step logged twice (a resumed run) keeps its last value.
    """
    if source.is_dir():
        return _by_name(_event_values(source))
    try:
        with source.open(encoding="utf-8", errors="replace") as lines:
            steps = filter(None, map(step_metrics, lines))
            return _by_name((name, step, value) for step, metrics in steps for name, value in metrics.items())
    except FileNotFoundError:
        hint = "give a TensorBoard folder or a training log"
        raise CellDualityError("no training curves", code="no-curves", where=str(source), hint=hint) from None


def _event_values(folder: Path) -> Iterator[tuple[str, int, float]]:
    runs = sorted({path.parent for path in folder.rglob("events.out.tfevents.*")})
    if not runs:
        return
    with needs_extra("eval"):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    for run in runs:
        events = EventAccumulator(str(run), size_guidance={"scalars": 0})
        events.Reload()
        for tag in events.Tags()["scalars"]:
            yield from ((tag.removeprefix("train/"), event.step, event.value) for event in events.Scalars(tag))


def _by_name(values: Iterable[tuple[str, int, float]]) -> Curves:
    found: dict[str, dict[int, float]] = {}
    for name, step, value in values:
        found.setdefault(name, {})[step] = value
    return {name: sorted(points.items()) for name, points in found.items()}


def divided(curves: Curves) -> Curves:
    """Return the finite values of curves, and ratios where two means are logged: :mod:`cellduality_plugin.alarms`."""
    values = ((name, step, value) for step, own in steps_of(curves) for name, value in with_ratios(own).items())
    return _by_name(each for each in values if math.isfinite(each[2]))


def chosen(curves: Curves, at_most: int = 18) -> Curves:
    """Return the curves worth a plot, rewards and losses first; no timings, constants or copies of an earlier one."""

    def rank(name: str) -> tuple[int, str]:
        kind = name.partition("/")[0] if name.startswith("dual_") else name.rpartition("/")[2]
        return (_FIRST.index(kind) if kind in _FIRST else len(_FIRST) + (not kind.startswith("dual_")), name)

    kept: Curves = {}
    for name in sorted(curves, key=rank):
        moving = len({value for _, value in curves[name]}) > 1 and not name.startswith(("timing/", "rollout/"))
        if moving and curves[name] not in kept.values() and len(kept) < at_most:
            kept[name] = curves[name]
    return kept


@dataclass(frozen=True)
class Band:
    """One quantity over the steps of several runs."""

    steps: NDArray[np.int64]  # at which every run has a moving average
    mean: NDArray[np.float64]  # of them over runs
    spread: NDArray[np.float64]  # the standard deviation over runs (n - 1), 0 for one run
    raw: Sequence[Sequence[tuple[int, float]]]  # (step, value) as it was logged, of each run

    @property
    def runs(self) -> int:
        """How many runs it is the mean of."""
        return len(self.raw)


@dataclass(frozen=True)
class Panel:
    """One task: its reward and, where rows held gold, the ground truth."""

    family: str
    task: str
    reward: Band
    truth: Band | None
    truth_is: str  # what the ground truth of this task measures


def band(runs: Sequence[Sequence[tuple[int, float]]], window: int) -> Band:
    """Return mean and standard deviation over ``runs`` of the means of what each logged in ``window`` steps."""
    steps, smooth = np.array(sorted({step for points in runs for step, _ in points}), dtype=np.int64), []
    for points in runs:
        logged, values = np.array([p[0] for p in points]), np.array([p[1] for p in points], dtype=float)
        within = (logged > steps[:, None] - window) & (logged <= steps[:, None])
        counts = within.sum(axis=1)
        smooth.append(np.divide(within @ values, counts, out=np.full(len(steps), np.nan), where=counts > 0))
    known = np.isfinite(smooth).all(axis=0)
    kept = np.array(smooth)[:, known]
    spread = kept.std(axis=0, ddof=1) if len(runs) > 1 else np.zeros(int(known.sum()))
    return Band(steps[known], kept.mean(axis=0), spread, runs)


def panels(runs: Sequence[Curves], window: int = 5) -> list[Panel]:
    """Return the panels of Figure 2, family by family, of tasks that every run logged; its truth likewise.

    ``window`` are the steps of the moving average.
    """
    own, found = [divided(curves) for curves in runs], []
    logged = {name.removeprefix(f"{REWARD}/") for curves in own for name in curves if name.startswith(f"{REWARD}/")}
    for task in (*TASKS, *sorted(logged - TASKS.keys())):
        rewards, truths = ([curves.get(f"{kind}/{task}", []) for curves in own] for kind in (REWARD, TRUTH))
        if task in logged and all(rewards):
            pair, truth = TASKS.get(task), band(truths, window) if all(truths) else None
            truth_is = "accuracy" if pair and isinstance(pair.answer, OneOf) else "RWJS to the true cell"
            family, truth_is = (pair.family, truth_is) if pair else (DualTask.family, "ground truth")
            found.append(Panel(family, task, band(rewards, window), truth, truth_is))
    return found


def write_figure(sources: Sequence[Path], out: Path, window: int = 5) -> list[Panel]:
    """Return the panels of ``sources`` (see :func:`read_curves`), drawn to an .svg, .png or .pdf file.

    A CellDualityError if a source is missing, the runs have no reward by task in common, or the format is another.
    """
    if out.suffix not in FORMATS:
        what = f"cannot draw {out.suffix or 'without an ending'}"
        raise CellDualityError(what, code="wrong-format", where=str(out), hint="end it in .svg")
    found = panels([read_curves(source) for source in sources], window)
    if not found:
        what, where = f"no {REWARD}/TASK that all of these logged", ", ".join(map(str, sources))
        hint = "give the TensorBoard folder or the log of GRPO with a dual reward"
        raise CellDualityError(what, code="no-curves", where=where, hint=hint)
    save_figure2(out, found, window)
    return found
