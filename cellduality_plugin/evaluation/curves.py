"""Training curves, from TensorBoard event files or from the trainer's own log lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

from cellduality_plugin.alarms import step_metrics, steps_of, with_ratios
from cellduality_plugin.errors import CellDualityError, needs_extra

Curves: TypeAlias = dict[str, list[tuple[int, float]]]
"""By name of the quantity: (step, value), steps ascending, one value a step."""

_FIRST = (
    "reward", "score", "gpt_loss", "loss", "dual_reward", "dual_truth", "dual_similarity", "dual_validity", "kl",
    "response_length", "dual_label_entropy", "dual_zero_variance", "dual_success", "dual_copied",
)  # fmt: skip


def read_curves(source: Path) -> Curves:
    """Return the curves in ``source``; empty if it holds none, a CellDualityError if it is not there.

    It is a folder with TensorBoard event files (searched with its sub-folders), or a training log with lines
    ``Global step N: {...}``.
    """
    if source.is_dir():
        return _by_name(_event_values(source))
    try:
        with source.open(encoding="utf-8", errors="replace") as lines:
            return parse_log(lines)
    except FileNotFoundError:
        hint = "give a TensorBoard folder or a training log"
        raise CellDualityError("no training curves", code="no-curves", where=str(source), hint=hint) from None


def parse_log(lines: Iterable[str]) -> Curves:
    """Return the curves in log lines; a step logged twice (a resumed run) keeps its last value.

    Examples
    --------
    >>> parse_log(["(pid=7) Global step 1: {'reward': 0.25, 'kl': 1e-05}", "noise", "Global step 2: {'reward': 0.5}"])
    {'reward': [(1, 0.25), (2, 0.5)], 'kl': [(1, 1e-05)]}
    """
    steps = filter(None, map(step_metrics, lines))
    return _by_name((name, step, value) for step, metrics in steps for name, value in metrics.items())


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
    """Return what the curves say: those that are logged as two means divided, see :mod:`cellduality_plugin.alarms`.

    Examples
    --------
    >>> divided({"dual_share/t": [(1, 0.5), (2, 0.0)], "dual_reward/t": [(1, 0.25), (2, 0.0)]})
    {'dual_reward/t': [(1, 0.5)]}
    """
    found: Curves = {}
    for step, metrics in steps_of(curves):
        for name, value in with_ratios(metrics).items():
            found.setdefault(name, []).append((step, value))
    return found


def chosen(curves: Curves, at_most: int = 18) -> Curves:
    """Return the curves worth a plot: rewards and losses first, then the rest by name.

    Timings, constants and copies of an earlier curve are left out.
    """

    def rank(name: str) -> tuple[int, str]:
        kind = name.partition("/")[0] if name.startswith("dual_") else name.rpartition("/")[2]
        return (_FIRST.index(kind) if kind in _FIRST else len(_FIRST) + (not kind.startswith("dual_")), name)

    kept: Curves = {}
    for name, points in sorted(curves.items(), key=lambda curve: rank(curve[0])):
        moving = len({value for _, value in points}) > 1 and not name.startswith(("timing/", "rollout/"))
        if moving and points not in kept.values() and len(kept) < at_most:
            kept[name] = points
    return kept
