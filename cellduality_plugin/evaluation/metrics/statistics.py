"""Bootstrap intervals: over rows, of means, and of distances between samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.evaluation.distances import RESAMPLES
from cellduality_plugin.evaluation.metrics.given import Reference
from cellduality_plugin.evaluation.metrics.registry import Measurement

CENTRED = f"interval of {RESAMPLES} resamples within types, centred"


def bootstrap_interval(
    statistic: Callable[..., float], *columns: Sequence[Any] | NDArray[Any], seed: int, resamples: int = 500
) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of ``statistic(*columns)``, one entry a cell, drawn together."""
    arrays = [np.asarray(column) for column in columns]
    draws = _draws(len(arrays[0]), seed, resamples)
    return _percentiles([statistic(*(array[draw] for array in arrays)) for draw in draws])


def _draws(rows: int, seed: int, resamples: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, rows, (resamples, rows))


def _percentiles(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def mean_of(values: Sequence[tuple[str, float]], reference: Reference, **how: Any) -> Measurement:
    """Return the mean of (row, value), with its interval over rows; the order changes no bit. None without values.

    All values of a row are drawn together: several answers to one question are no independent evidence.
    """
    if not values:
        return Measurement(None, seed=reference.seed, note="no answer could be read", **how)
    rows, numbers = zip(*sorted(values), strict=True)
    _, codes = np.unique(np.asarray(rows, dtype=str), return_inverse=True)
    sums, counts = np.bincount(codes, weights=np.asarray(numbers, dtype=np.float64)), np.bincount(codes)
    draws = _draws(len(sums), reference.seed, reference.resamples)
    interval = _percentiles(sums[draws].sum(axis=1) / counts[draws].sum(axis=1))
    mean = math.fsum(numbers) / len(numbers)
    return Measurement(mean, n=len(numbers), interval=interval, seed=reference.seed, **how)


def centred_interval(
    value: float, resampled: NDArray[np.float64], low: float | None = None, high: float | None = None
) -> tuple[float, float]:
    """Return the 95 % interval of a distance from its bootstrap values, moved to where ``value`` is their mean.

    Two resamples are further apart than the samples they come from. It is cut to the range ``low`` to ``high``.
    """
    left, right = _percentiles(resampled - resampled.mean() + value)
    if (low, high) != (None, None):
        left, right = np.clip([left, right], low, high)
    return float(left), float(right)
