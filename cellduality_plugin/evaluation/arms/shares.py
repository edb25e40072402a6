"""How much of one paired gain another is: a ratio of means over seeds, with Fieller's interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from cellduality_plugin.evaluation.seeds import Spread, t_quantile

Gap: TypeAlias = Literal["certain", "likely", "none"]


@dataclass(frozen=True)
class Share:
    """The ratio of two mean gains, 1 where they are equal, and its 95 % interval; None where that has no bounds."""

    value: float
    interval: tuple[float, float] | None

    def __str__(self) -> str:
        bounds = "no bounds" if self.interval is None else " to ".join(percent(bound) for bound in self.interval)
        return f"{percent(self.value)} ({bounds})"


def percent(value: float) -> str:
    """Return a share as tables show it.

    Examples
    --------
    >>> percent(0.623), percent(-0.1), percent(-0.001)
    ('62 %', '-10 %', '0 %')
    """
    return f"{round(100 * value)} %"


def gap_of(gain: Spread) -> Gap:
    """Return whether a mean paired gain is there: its 95 % interval is above 0, or it exceeds its deviation, or not.

    One seed shows no gap, whatever it gains.

    Examples
    --------
    >>> [gap_of(Spread.of(gains)) for gains in ([0.1, 0.11, 0.09], [0.1, 0.02, 0.12], [0.1, -0.1], [0.1])]
    ['certain', 'likely', 'none', 'none']
    """
    interval = gain.interval
    if interval is None:
        return "none"
    if interval[0] > 0:
        return "certain"
    return "likely" if gain.mean > gain.deviation else "none"


def share_of(gains: Sequence[float], whole: Sequence[float]) -> Share:
    """Return the mean of ``gains`` divided by the mean of ``whole``, seed by seed of the same runs.

    Parameters
    ----------
    gains, whole
        Two gains or more, in the same order of seeds. The mean of ``whole`` is not 0.

    Notes
    -----
    The interval is Fieller's (1954): every ratio r for which a t test on ``gains - r * whole`` with n - 1 degrees of
    freedom keeps its null hypothesis. It heeds that both means come from the same seeds, and is exact for normal gains,
    where resampling five seeds is not. It is bounded if and only if the t interval of ``whole`` excludes 0.

    Examples
    --------
    >>> print(share_of([0.05, 0.06, 0.07], [0.1, 0.12, 0.14]))
    50 % (50 % to 50 %)
    >>> print(share_of([0.05, 0.06, 0.04], [0.1, 0.11, 0.12]))
    45 % (20 % to 81 %)
    """
    first, second = statistics.fmean(gains), statistics.fmean(whole)
    factor = t_quantile(len(whole)) ** 2 / len(whole)
    a = second**2 - factor * _covariance(whole, whole)
    b = first * second - factor * _covariance(gains, whole)
    c = first**2 - factor * _covariance(gains, gains)
    if a <= 0:
        return Share(first / second, None)
    root = math.sqrt(max(0.0, b**2 - a * c))  # below 0 by rounding alone
    return Share(first / second, ((b - root) / a, (b + root) / a))


def _covariance(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the sample covariance (n - 1); the order of the seeds does not change a bit of it."""
    means = statistics.fmean(first), statistics.fmean(second)
    products = [(x - means[0]) * (y - means[1]) for x, y in zip(first, second, strict=True)]
    return math.fsum(products) / (len(products) - 1)
