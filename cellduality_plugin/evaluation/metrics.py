"""Measures of labels and of gene lists: small pure functions, each with its range and best value."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.parsing import Answer

Labels: TypeAlias = Sequence[str] | NDArray[np.str_]
Better: TypeAlias = Literal["higher", "lower", "like real cells"]


@dataclass(frozen=True)
class Metric:
    """One number with everything needed to read it.

    Parameters
    ----------
    value
        The number; None if it does not exist for these cells, and then ``note`` says why.
    better
        The direction of improvement.
    best
        The best possible value; None where only real cells define it.
    n
        How many cells it was computed on.
    interval
        The 95 % bootstrap interval over rows, all draws of a row together; None where there is none, and then ``note``
        says why.
    space, kernel
        Where distances were taken; empty where there are none.
    estimator
        What was averaged over what.
    seed
        Of everything that was drawn.
    note
        What a reader must know besides.
    bounds
        The least and the largest value there can be; None where there is no bound.
    real
        The same number of real cells against real cells: the ceiling (or floor). None where they have none, as labels.
    """

    value: float | None
    better: Better
    best: float | None
    n: int
    interval: tuple[float, float] | None = None
    space: str = ""
    estimator: str = ""
    kernel: str = ""
    seed: int | None = None
    note: str = ""
    bounds: tuple[float | None, float | None] = (0.0, 1.0)
    real: float | None = None


def accuracy(gold: Labels, predicted: Labels) -> float:
    """Return the share of cells whose predicted label is the gold one, in [0, 1]. Best value 1.

    Parameters
    ----------
    gold, predicted
        One label a cell, in the same order; an answer that could not be read is an empty string, hence wrong.

    Raises
    ------
    ValueError
        If there are no cells, or the lengths differ.

    Examples
    --------
    >>> accuracy(["B", "T", "T", "NK"], ["B", "T", "B", ""])
    0.5
    """
    _same_length(gold, predicted)
    return float(np.mean(np.asarray(gold) == np.asarray(predicted)))


def macro_f1(gold: Labels, predicted: Labels) -> float:
    """Return the unweighted mean F1 over the labels present in ``gold``, in [0, 1]. Best value 1.

    A label that nobody predicts has F1 0. Labels that only the predictions hold have no F1 of their own; they cost
    the labels they were taken for their recall.

    Parameters
    ----------
    gold, predicted
        One label a cell, in the same order; an unreadable answer is an empty string.

    Raises
    ------
    ValueError
        If there are no cells, or the lengths differ.

    Examples
    --------
    >>> macro_f1(["B", "B", "T", "T"], ["B", "B", "T", "NK"])
    0.8333...
    """
    _same_length(gold, predicted)
    truth, answers = np.asarray(gold), np.asarray(predicted)
    # In numpy, because a bootstrap asks hundreds of times; the tests hold it against scikit-learn.
    _, codes = np.unique(np.concatenate([truth, answers]), return_inverse=True)
    in_gold, in_answers = codes[: len(truth)], codes[len(truth) :]
    size = int(codes.max()) + 1
    found = np.bincount(in_gold, minlength=size)
    hits = np.bincount(in_gold[in_gold == in_answers], minlength=size)
    present = found > 0
    return float(np.mean(2 * hits[present] / (found + np.bincount(in_answers, minlength=size))[present]))


def confusion(gold: Labels, predicted: Labels, labels: Sequence[str]) -> NDArray[np.int64]:
    """Return counts, gold labels x (predicted ``labels`` and last "no label").

    Examples
    --------
    >>> confusion(["B", "T"], ["B", ""], ["B", "T"]).tolist()
    [[1, 0, 0], [0, 0, 1]]
    """
    place = {label: index for index, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels) + 1), dtype=np.int64)
    for truth, answer in zip(gold, predicted, strict=True):
        counts[place[truth], place.get(answer, len(labels))] += 1
    return counts


def distinct_rate(cells: Sequence[Hashable]) -> float:
    """Return the number of different cells over the number of cells, in (0, 1]. Best value 1.

    Examples
    --------
    >>> distinct_rate([("A", "B"), ("A", "B"), ("B", "A"), ("C",)])
    0.75
    """
    if not cells:
        raise ValueError("no cells")
    return len(set(cells)) / len(cells)


def validity_rate(answers: Sequence[Answer]) -> float:
    """Return the mean share of a cell's words that are genes of the vocabulary, in [0, 1]. Best value 1.

    An answer that could not be read counts 0. Repeats are genes: see :func:`duplicate_rate`.

    Examples
    --------
    >>> validity_rate([Answer(("A", "B"), listed=4, unknown=1, repeated=1), Answer(None, failure="no_answer")])
    0.375
    """
    if not answers:
        raise ValueError("no answers")
    shares = validity_shares(answers)
    return math.fsum(shares) / len(shares)  # exact, hence the same in any order


def validity_shares(answers: Sequence[Answer]) -> list[float]:
    """Return of each answer what :func:`validity_rate` is the mean of, in [0, 1]."""
    return [(a.listed - a.unknown) / a.listed if a.listed and not a.failure else 0.0 for a in answers]


def duplicate_rate(answers: Sequence[Answer]) -> float | None:
    """Return the mean share of a cell's genes that repeat an earlier one, in [0, 1). Best value 0.

    Only answers that could be read count; None if there are none.

    Examples
    --------
    >>> duplicate_rate([Answer(("A", "B"), listed=5, unknown=1, repeated=2), Answer(("A",), listed=1)])
    0.25
    """
    shares = duplicate_shares(answers)
    return math.fsum(shares) / len(shares) if shares else None


def duplicate_shares(answers: Sequence[Answer]) -> list[float]:
    """Return of each answer that could be read what :func:`duplicate_rate` is the mean of, in [0, 1)."""
    return [a.repeated / (a.listed - a.unknown) for a in answers if not a.failure and a.listed > a.unknown]


def bootstrap_interval(
    statistic: Callable[..., float], *columns: Sequence[Any] | NDArray[Any], seed: int, resamples: int = 500
) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of ``statistic(*columns)`` over cells.

    Parameters
    ----------
    statistic
        Called with resampled columns.
    columns
        One entry a cell each, in the same order; resampled together.
    seed, resamples
        The randomness and how often.

    Examples
    --------
    >>> bootstrap_interval(accuracy, ["B"] * 9, ["B"] * 9, seed=0, resamples=20)
    (1.0, 1.0)
    """
    rng = np.random.default_rng(seed)
    arrays = [np.asarray(column) for column in columns]
    n = len(arrays[0])
    draws = (rng.integers(0, n, n) for _ in range(resamples))
    values = [statistic(*(array[draw] for array in arrays)) for draw in draws]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def mean_interval(
    values: Sequence[float] | NDArray[Any], rows: Sequence[str], seed: int, resamples: int = 500
) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean of ``values``, all values of a row drawn together.

    What a checkpoint answers to one question several times is no independent evidence: an interval over answers would
    be too narrow.

    Parameters
    ----------
    values
        One an answer.
    rows
        The row that each is an answer to, in the same order.
    seed, resamples
        The randomness and how often.

    Examples
    --------
    >>> mean_interval([0.0, 0.0, 1.0, 1.0], ["a", "a", "b", "b"], seed=0)
    (0.0, 1.0)
    """
    _, codes = np.unique(np.asarray(rows, dtype=str), return_inverse=True)
    sums, counts = np.bincount(codes, weights=np.asarray(values, dtype=np.float64)), np.bincount(codes)
    return bootstrap_interval(lambda s, c: float(s.sum() / c.sum()), sums, counts, seed=seed, resamples=resamples)


def centred_interval(
    value: float, resampled: NDArray[np.float64], low: float | None = None, high: float | None = None
) -> tuple[float, float]:
    """Return the 95 % interval of a distance from its bootstrap values, moved to where ``value`` is their mean.

    Two resamples are further apart than the samples they come from, because resampling adds noise of its own. So the
    percentiles as they are would lie above the value; moved back, they say how much it would vary from one draw of
    cells to the next.

    Parameters
    ----------
    value
        The distance of the samples themselves.
    resampled
        The distance of every resample.
    low, high
        The range of the distance, which the interval is cut to; None where there is no bound.

    Examples
    --------
    >>> low, high = centred_interval(1.0, np.array([2.0, 3.0, 4.0]))
    >>> round(low, 3), round(high, 3)
    (0.05, 1.95)
    """
    left, right = np.percentile(resampled - resampled.mean() + value, [2.5, 97.5])
    left, right = np.clip([left, right], low, high) if (low, high) != (None, None) else (left, right)
    return float(left), float(right)


def _same_length(gold: Labels, predicted: Labels) -> None:
    if not len(gold) or len(gold) != len(predicted):
        raise ValueError(f"{len(gold)} gold labels and {len(predicted)} predicted ones")
