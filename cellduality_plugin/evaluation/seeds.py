"""Several runs of one recipe, seed by seed: spreads, paired changes, and the share of one gain that another is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from scipy.stats import t as student

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.tables import written

Gap: TypeAlias = Literal["certain", "likely", "none"]
Runs: TypeAlias = Sequence[Mapping[str, Any]]
"""One ``metrics.json`` a seed."""

LEVEL = 0.95
"""Of every confidence interval over seeds."""


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n - 1) over seeds; the deviation of one value is NaN."""

    mean: float
    deviation: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of ``values``, of which there is at least one.

        Examples
        --------
        >>> Spread.of([1.0, 2.0, 3.0]), Spread.of([1.0, 2.0, 3.0]).interval
        (Spread(mean=2.0, deviation=1.0, count=3), (-0.484..., 4.484...))
        """
        deviation = statistics.stdev(values) if len(values) > 1 else math.nan
        return cls(statistics.fmean(values), deviation, len(values))

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the mean by Student's t with n - 1 degrees of freedom; None for one value."""
        if self.count < 2:
            return None
        half = _t_quantile(self.count) * self.deviation / math.sqrt(self.count)
        return self.mean - half, self.mean + half

    def __str__(self) -> str:
        return written(self.mean) + ("" if math.isnan(self.deviation) else f" ± {written(self.deviation)}")


@dataclass(frozen=True)
class Share:
    """The ratio of two mean gains, 1 where they are equal, and its 95 % interval; None where that has no bounds."""

    value: float
    interval: tuple[float, float] | None

    def __str__(self) -> str:
        bounds = "no bounds" if self.interval is None else " to ".join(percent(bound) for bound in self.interval)
        return f"{percent(self.value)} ({bounds})"


def of_one_kind(runs: Runs) -> None:
    """Refuse runs that cannot be averaged: none, or of different splits or columns."""
    if len({run["split"] for run in runs}) != 1 or len({tuple(run["columns"]) for run in runs}) != 1:
        raise CellDualityError(
            "the runs are not of one kind", where="metrics.json", hint="give runs of one recipe and one split"
        )


def values_of(runs: Runs, key: str, column: str) -> tuple[float, ...]:
    """Return metric ``key`` of ``column`` in every run, in their order; nothing if any run lacks it."""
    found = [run["columns"][column]["metrics"].get(key, {}).get("value") for run in runs]
    return () if None in found else tuple(found)


def paired_change(runs: Runs, key: str, before: str, after: str) -> tuple[float, ...]:
    """Return the change of metric ``key`` from column ``before`` to column ``after``, seed by seed."""
    pairs = zip(values_of(runs, key, before), values_of(runs, key, after), strict=True)
    return tuple(second - first for first, second in pairs)


def gap_of(gain: Spread) -> Gap:
    """Return whether a mean paired gain is there: its 95 % interval is above 0, or it exceeds its deviation, or not."""
    interval = gain.interval
    if interval is None:
        return "none"
    return "certain" if interval[0] > 0 else "likely" if gain.mean > gain.deviation else "none"


def share_of(gains: Sequence[float], whole: Sequence[float]) -> Share:
    """Return the mean of ``gains`` divided by the mean of ``whole`` (not 0), seed by seed of the same runs.

    The interval is Fieller's (1954): every ratio r for which a t test on ``gains - r * whole`` keeps its null
    hypothesis. It is bounded if and only if the t interval of ``whole`` excludes 0.

    Examples
    --------
    >>> print(share_of([0.05, 0.06, 0.04], [0.1, 0.11, 0.12]))
    45 % (20 % to 81 %)
    """
    first, second = statistics.fmean(gains), statistics.fmean(whole)
    factor = _t_quantile(len(whole)) ** 2 / len(whole)
    a = second**2 - factor * _covariance(whole, whole)
    b = first * second - factor * _covariance(gains, whole)
    c = first**2 - factor * _covariance(gains, gains)
    if a <= 0:
        return Share(first / second, None)
    root = math.sqrt(max(0.0, b**2 - a * c))  # below 0 by rounding alone
    return Share(first / second, ((b - root) / a, (b + root) / a))


def percent(value: float) -> str:
    """Return a share as tables show it, in whole percent."""
    return f"{round(100 * value)} %"


def _t_quantile(count: int) -> float:
    """Return how many standard errors a two-sided 95 % interval of a mean of ``count`` values (2 or more) spans."""
    return float(student.ppf(1 - (1 - LEVEL) / 2, count - 1))


def _covariance(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the sample covariance (n - 1); the order of the seeds does not change a bit of it."""
    means = statistics.fmean(first), statistics.fmean(second)
    products = [(x - means[0]) * (y - means[1]) for x, y in zip(first, second, strict=True)]
    return math.fsum(products) / (len(products) - 1)
