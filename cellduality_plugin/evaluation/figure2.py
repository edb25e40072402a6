"""Figure 2 of the paper: rewards while a run learns, by task family, with the ground truth on the same axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.curves import Curves, divided, read_curves
from cellduality_plugin.evaluation.plots import save_figure2
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.tasks import TASKS, DualTask

REWARD, TRUTH = "dual_reward", "dual_truth"
FORMATS = (".svg", ".png", ".pdf")


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

    @property
    def truth_is(self) -> str:
        """What the ground truth of this task measures."""
        pair = TASKS.get(self.task)
        if pair is None:
            return "ground truth"
        return "accuracy" if isinstance(pair.answer, OneOf) else "RWJS to the true cell"


def moving_average(points: Sequence[tuple[int, float]], steps: NDArray[np.int64], window: int) -> NDArray[np.float64]:
    """Return at each of ``steps`` the mean of what was logged in the last ``window`` steps; NaN where nothing was.

    A step in which a task had no row logs nothing of it, so that the mean is over the steps that did.
    """
    logged, values = np.array([p[0] for p in points]), np.array([p[1] for p in points], dtype=float)
    within = (logged > steps[:, None] - window) & (logged <= steps[:, None])
    counts = within.sum(axis=1)
    mean: NDArray[np.float64] = np.divide(within @ values, counts, out=np.full(len(steps), np.nan), where=counts > 0)
    return mean


def band(runs: Sequence[Sequence[tuple[int, float]]], window: int) -> Band:
    """Return mean and standard deviation over ``runs`` of their moving averages."""
    steps = np.array(sorted({step for points in runs for step, _ in points}), dtype=np.int64)
    smooth = np.array([moving_average(points, steps, window) for points in runs])
    known = np.isfinite(smooth).all(axis=0)
    spread = smooth[:, known].std(axis=0, ddof=1) if len(runs) > 1 else np.zeros(int(known.sum()))
    return Band(steps[known], smooth[:, known].mean(axis=0), spread, runs)


def panels(runs: Sequence[Curves], window: int = 5) -> list[Panel]:
    """Return the panels of the figure, family by family; none if no run logged the reward of a task.

    A task is shown if every run (usually one a seed) logged it, its truth likewise. ``window`` are the steps of the
    moving average.
    """
    own = [divided(curves) for curves in runs]
    logged = [{name.partition("/")[2] for name in curves if name.startswith(f"{REWARD}/")} for curves in own]
    common = set.intersection(*logged) if logged else set()
    families = {task: pair.family for task, pair in TASKS.items()}
    order, found = [*families, *sorted(common - families.keys())], []
    for task in sorted(common, key=order.index):
        truths = [curves.get(f"{TRUTH}/{task}", []) for curves in own]
        reward, truth = band([curves[f"{REWARD}/{task}"] for curves in own], window), None
        if all(truths):
            truth = band(truths, window)
        found.append(Panel(families.get(task, DualTask.family), task, reward, truth))
    return found


def write_figure(sources: Sequence[Path], out: Path, window: int = 5) -> list[Panel]:
    """Return the panels of ``sources`` (TensorBoard folders or training logs), drawn to an .svg, .png or .pdf file.

    A CellDualityError if a source is missing, the runs logged no reward by task in common, or the format is another.
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
