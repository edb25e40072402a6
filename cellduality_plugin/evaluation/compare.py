"""Runs over seeds: the spread of every column, and what each arm gains over the checkpoint that it started from."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from scipy.stats import t as student

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.metrics.registry import SHARED, Group, group
from cellduality_plugin.evaluation.tables import ordered_keys, section_title, signed, title, written
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.tasks import TASKS

LEVEL = 0.95  # of every confidence interval over seeds
GOAL = 0.5  # the share of every gap that self-supervision is to close

Role: TypeAlias = Literal["before", "reference", "arm", "oracle", "baseline", "real"]
Interval: TypeAlias = "tuple[float, float] | None"
Runs: TypeAlias = Sequence[Mapping[str, Any]]  # one ``metrics.json`` a seed
Row: TypeAlias = Mapping[str, Any]  # one metric as ``arms.json`` holds it, see :func:`compare`


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n - 1) over seeds; the deviation of one value is NaN."""

    mean: float
    deviation: float
    interval: Interval  # 95 %, of the mean, by Student's t with n - 1 degrees of freedom; None for one value

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of one value or more."""
        mean = statistics.fmean(values)
        if len(values) < 2:
            return cls(mean, math.nan, None)
        deviation = statistics.stdev(values)
        half = _t_quantile(len(values)) * deviation / math.sqrt(len(values))
        return cls(mean, deviation, (mean - half, mean + half))

    def __str__(self) -> str:
        return written(self.mean) + ("" if math.isnan(self.deviation) else f" ± {written(self.deviation)}")

    def named(self, prefix: str) -> dict[str, Any]:
        """Return what JSON holds of it."""
        deviation = None if math.isnan(self.deviation) else self.deviation
        return {f"{prefix}mean": self.mean, f"{prefix}deviation": deviation, f"{prefix}interval": self.interval}


def row_label(key: str, better: str) -> str:
    """Return the name of a metric with its section, as tables show it."""
    return f"{section_title(key.rpartition('/')[0])}: {title(key, better)}"


def headline_of(key: str) -> int:
    """Return the place of a metric among the headlines of its task, from 1, which decides; 0 if it is none."""
    section, _, metric = key.rpartition("/")
    groups: tuple[Group, ...] = "labels", "cells"
    if pair := TASKS.get(section.partition("@")[0]):
        of_cells: tuple[Group, ...] = ("responses", "cells") if "control" in pair.needs else ("cells",)
        groups = ("labels",) if isinstance(pair.answer, OneOf) else of_cells
    names = [each.headline for name in groups for each in group(name) if each.headline]
    return names.index(own) + 1 if (own := metric.removeprefix(SHARED)) in names else 0


def check_runs(runs: Runs) -> None:
    """Refuse runs that cannot be averaged: none, or of different splits or columns."""
    if len({run["split"] for run in runs}) != 1 or len({tuple(run["columns"]) for run in runs}) != 1:
        hint = "give runs of one recipe and one split"
        raise CellDualityError("the runs are not of one kind", code="mixed-runs", where="metrics.json", hint=hint)


def values_of(runs: Runs, key: str, column: str) -> tuple[float, ...]:
    """Return metric ``key`` of ``column`` in every run, in their order; nothing if any run lacks it."""
    found = [run["columns"][column]["metrics"].get(key, {}).get("value") for run in runs]
    return () if None in found else tuple(found)


def paired_change(before: Sequence[float], after: Sequence[float]) -> list[float]:
    """Return the change seed by seed."""
    return [second - first for first, second in zip(before, after, strict=True)]


def compare(runs: Runs, reference: str = "SFT", oracle: str = "oracle") -> list[Row]:
    """Return a row for every metric that has a better direction and that the reference has in every run.

    Arms are the checkpoints in columns after ``reference``, from which they start; ``oracle`` is the one rewarded by
    the true answers, empty if there is none. A CellDualityError if runs differ in columns or split, or lack a column.

    Of a row its ``key`` (section/metric), ``better``, ``headline`` (:func:`headline_of`), ``gap`` (:func:`gap_of`; None
    without an oracle) and ``columns``. Of a column its ``role``, ``values`` by run (none if a run lacks it) and their
    :class:`Spread`. Of arms and the oracle the spread of the ``change_``, paired by seed; whether it is ``clear`` of 0;
    ``share`` and ``share_interval`` of the oracle's gain (:func:`share_of`; None without); ``outcome`` and ``verdict``.
    """
    check_runs(runs)
    columns, rows = runs[0]["columns"], list[Row]()
    checkpoints = [name for name, column in columns.items() if column["kind"] == "checkpoint"]
    for flag, name in (("--reference", reference), ("--oracle", oracle)):
        if name not in checkpoints and (name or flag == "--reference"):
            hint = f"choose among {', '.join(checkpoints)}" + (", or '' without one" if flag == "--oracle" else "")
            raise CellDualityError(f"no checkpoint {name!r}", code="unknown-column", where=flag, hint=hint)
    first = checkpoints.index(reference)
    roles: dict[str, Role] = {name: "arm" if place > first else "before" for place, name in enumerate(checkpoints)}
    roles |= {oracle: "oracle", reference: "reference"}
    roles = {name: roles.get(name, column["kind"]) for name, column in columns.items()}
    for key in ordered_keys(runs[0]):
        values = {name: values_of(runs, key, name) for name in roles}
        better = {run["columns"][reference]["metrics"].get(key, {}).get("better") for run in runs}
        if values[reference] and better <= {"higher", "lower"}:
            rows.append(_row(key, better.pop(), values, roles, reference))
    return rows


def arms_of(row: Row) -> dict[str, Mapping[str, Any]]:
    """Return the columns of ``row`` that have a change: the oracle first."""
    found = [(name, column) for name, column in row["columns"].items() if "outcome" in column]
    return dict(sorted(found, key=lambda each: each[1]["role"] != "oracle"))


def best_of(row: Row, *roles: Role) -> set[str]:
    """Return the columns of ``roles`` (by default all but real cells, the ceiling) with the best mean."""
    known = {name: own for name, own in row["columns"].items() if own["values"] and own["role"] != "real"}
    rivals = {name: own for name, own in known.items() if not roles or own["role"] in roles}
    top = (max if row["better"] == "higher" else min)((own["mean"] for own in rivals.values()), default=None)
    return {name for name, own in rivals.items() if own["mean"] == top}


def _row(
    key: str, better: str, values: Mapping[str, tuple[float, ...]], roles: Mapping[str, Role], reference: str
) -> Row:
    sign = 1.0 if better == "higher" else -1.0
    columns: dict[str, dict[str, Any]] = {}
    changes, gains = dict[str, Spread](), dict[str, list[float]]()
    for name, role in roles.items():
        own = values[name]
        columns[name] = {"role": role, "values": [*own], **(Spread.of(own).named("") if own else {})}
        if own and role in ("oracle", "arm"):
            found = paired_change(values[reference], own)
            changes[name], gains[name] = Spread.of(found), [sign * change for change in found]
    whole = next((gains[name] for name in gains if roles[name] == "oracle"), None)
    gap = gap_of(Spread.of(whole)) if whole else None
    for name, change in changes.items():
        share, interval = share_of(gains[name], whole) if whole and gap != "none" else (None, None)
        outcome, verdict = judge(Spread.of(gains[name]), gap, share, signed(change.mean))
        if roles[name] == "oracle" and outcome != "unknown":
            words = {"certain": "a gap", "likely": "a gap that is not certain", "none": "no gap"}[gap or "none"]
            verdict = f"{words} ({signed(change.mean)})"
        clear = change.interval is not None and not change.interval[0] <= 0 <= change.interval[1]
        said = {"share": share, "share_interval": interval, "outcome": outcome, "verdict": verdict}
        columns[name] |= {**change.named("change_"), "clear": clear, **said}
    return {"key": key, "better": better, "headline": headline_of(key), "gap": gap, "columns": columns}


def gap_of(gain: Spread) -> str:
    """Return whether there is a gain: ``certain`` (95 % interval above 0), ``likely`` (above deviation) or ``none``."""
    if gain.interval is None:
        return "none"
    return "certain" if gain.interval[0] > 0 else "likely" if gain.mean > gain.deviation else "none"


def share_of(gains: Sequence[float], whole: Sequence[float]) -> tuple[float, Interval]:
    """Return the mean of ``gains`` divided by that of ``whole`` (not 0), seeds paired; and its 95 % interval, if any.

    The interval is Fieller's (1954): every ratio r for which a t test on ``gains - r * whole`` keeps its null
    hypothesis. It is bounded if and only if the t interval of ``whole`` excludes 0.
    """
    first, second = statistics.fmean(gains), statistics.fmean(whole)
    factor = _t_quantile(len(whole)) ** 2 / len(whole)
    a = second**2 - factor * statistics.covariance(whole, whole)
    b = first * second - factor * statistics.covariance(gains, whole)
    c = first**2 - factor * statistics.covariance(gains, gains)
    if a <= 0:
        return first / second, None
    root = math.sqrt(max(0.0, b**2 - a * c))  # below 0 by rounding alone
    return first / second, ((b - root) / a, (b + root) / a)


def judge(gain: Spread, gap: str | None, share: float | None, change: str) -> tuple[str, str]:
    """Return what the gain of an arm comes to, in one term and in plain words, of which ``change`` is one.

    It harms where the 95 % interval is below 0, may harm where the mean loss exceeds the deviation, and closes a gap
    where it closes :data:`GOAL` of it or more.
    """
    interval = gain.interval
    if interval is None:
        return "unknown", "one seed says nothing"
    if interval[1] < 0:
        return "harms", f"harms ({change})"
    closes = share is not None and share >= GOAL
    if not closes and -gain.mean > gain.deviation:
        return "may harm", f"may harm ({change})"
    if share is not None:
        whole, part = "the gap" if gap == "certain" else "a gap that is not certain", percent(share)
        if share >= 1:
            return "closes", f"closes all of {whole} ({part})"
        return "closes" if closes else "falls short", f"closes {part if share > 0 else 'nothing'} of {whole}"
    if gap == "none":
        return "no gap", "no gap to close" + (f"; gains all the same ({change})" if interval[0] > 0 else "")
    return ("gains", f"gains ({change})") if interval[0] > 0 else ("no change", "no clear change")


def percent(value: float) -> str:
    """Return a share as tables show it, in whole percent."""
    return f"{round(100 * value)} %"


def _t_quantile(count: int) -> float:
    """Return how many standard errors a two-sided 95 % interval of a mean of ``count`` values (2 or more) spans."""
    return float(student.ppf(1 - (1 - LEVEL) / 2, count - 1))
