"""Measures of annotation and of generated cells: small pure functions, each with its range and best value."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist, pdist

from cellduality_plugin.parsing import Answer

Matrix: TypeAlias = NDArray[np.floating]
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
        The 95 % bootstrap interval over cells, if one was asked for.
    space, estimator, kernel, seed
        Where distances were taken and how; empty where there are none.
    note
        What a reader must know besides.
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
    from sklearn.metrics import f1_score

    _same_length(gold, predicted)
    present = sorted(set(gold))
    return float(f1_score(gold, predicted, labels=present, average="macro", zero_division=0))


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


def nearest_labels(distances: Matrix, labels: Labels, k: int) -> NDArray[np.str_]:
    """Return the k-NN label of every query: uniform votes of the ``k`` nearest.

    Ties are deterministic and do not depend on the order of the cells: neighbours at one distance are taken in the
    alphabetical order of their labels, and of labels with equally many votes the one with the nearest cell wins.

    Parameters
    ----------
    distances
        Queries x labelled cells; infinite where a query must not see a cell.
    labels
        One label a labelled cell.
    k
        How many neighbours vote.

    Raises
    ------
    ValueError
        If fewer than ``k`` cells are at a finite distance of some query.

    Examples
    --------
    >>> nearest_labels(np.array([[0.1, 0.2, 0.3]]), ["B", "T", "T"], 3).tolist()
    ['T']
    """
    visible = np.isfinite(distances).sum(axis=1)
    if k < 1 or (len(distances) and visible.min() < k):
        raise ValueError(f"k = {k} neighbours asked for, {visible.min() if len(visible) else 0} cells to be seen")
    names, codes = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    winners = np.empty(len(distances), dtype=np.int64)
    for query, row in enumerate(distances):
        nearest = codes[np.lexsort((codes, row))[:k]]
        votes = np.bincount(nearest, minlength=len(names))
        # `nearest` is in order of distance, so the first of the most voted labels is the one with the nearest cell.
        winners[query] = nearest[np.argmax(votes[nearest] == votes.max())]
    return names[winners]


def knn_agreement(
    real: Matrix, real_labels: Labels, generated: Matrix, conditions: Labels, k: int, unreadable: int = 0
) -> float:
    """Return the share of generated cells that a k-NN of real cells takes for their condition, in [0, 1]. Best 1.

    The value to compare with is :func:`knn_ceiling`, not 1.

    Parameters
    ----------
    real
        Real held-out cells x dimensions, with one label each in ``real_labels``.
    generated
        Generated cells x dimensions, in the same space, with what each was asked to be in ``conditions``.
    k
        How many neighbours vote (uniformly; Euclidean distance).
    unreadable
        Generated cells that hold no gene at all: each counts as a disagreement.

    Raises
    ------
    ValueError
        If there are fewer than ``k`` real cells, or no generated ones.

    Examples
    --------
    >>> knn_agreement(np.array([[0.0], [1.0]]), ["B", "T"], np.array([[0.1], [0.2]]), ["B", "T"], k=1)
    0.5
    """
    if len(generated) + unreadable == 0:
        raise ValueError("no generated cells")
    if len(generated) == 0:
        return 0.0
    named = nearest_labels(cdist(generated, real), real_labels, k)
    return float((named == np.asarray(conditions)).sum() / (len(generated) + unreadable))


def knn_ceiling(real: Matrix, real_labels: Labels, k: int) -> float:
    """Return the leave-one-out agreement of real cells, in [0, 1]: what a perfect generator can expect. Best 1.

    Every real cell is classified by the *other* real cells, never by itself.

    Examples
    --------
    >>> knn_ceiling(np.array([[0.0], [0.1], [1.0], [1.1]]), ["B", "B", "T", "T"], k=1)
    1.0
    """
    distances = cdist(real, real)
    np.fill_diagonal(distances, np.inf)
    return float(np.mean(nearest_labels(distances, real_labels, k) == np.asarray(real_labels)))


def median_bandwidth(cells: Matrix, seed: int, at_most: int = 1000) -> float:
    """Return the median Euclidean distance between two different ``cells``: sigma of the RBF kernel.

    Parameters
    ----------
    cells
        Real training cells x dimensions, so that the kernel is the same for every model.
    seed, at_most
        A seeded sample of this many cells stands for more.
    """
    if len(cells) > at_most:
        cells = cells[np.random.default_rng(seed).choice(len(cells), at_most, replace=False)]
    return float(np.median(pdist(cells)))


def mmd(one: Matrix, other: Matrix, bandwidth: float) -> float:
    r"""Return the squared maximum mean discrepancy of two samples, in [0, 2]. Best value 0.

    .. math:: MMD^2 = \frac{1}{n^2} \sum k(x, x') + \frac{1}{m^2} \sum k(y, y') - \frac{2}{n m} \sum k(x, y)

    with :math:`k(x, y) = \exp(-|x - y|^2 / 2 \sigma^2)`.

    Parameters
    ----------
    one, other
        Cells x dimensions, in one space.
    bandwidth
        sigma, e.g. from :func:`median_bandwidth`.

    Notes
    -----
    The biased V-statistic of Gretton et al. 2012, Eq. 5: never negative, 0 for identical samples, and of order
    1/n + 1/m for two samples of one distribution. So compare only values of equal sample sizes, with the value of
    real against real cells of those sizes beside them.

    Raises
    ------
    ValueError
        If a sample is empty or the bandwidth is not positive.

    Examples
    --------
    >>> mmd(np.array([[0.0], [1.0]]), np.array([[1.0], [0.0]]), bandwidth=1.0)
    0.0
    """
    if not len(one) or not len(other) or not bandwidth > 0:
        raise ValueError(f"MMD of {len(one)} and {len(other)} cells with bandwidth {bandwidth}")

    def mean_kernel(x: Matrix, y: Matrix) -> float:
        # Sorting makes the sum, hence the last digit, independent of the order of the cells.
        return float(np.sort(np.exp(-cdist(x, y, "sqeuclidean") / (2 * bandwidth**2)), axis=None).mean())

    return max(0.0, mean_kernel(one, one) + mean_kernel(other, other) - 2 * mean_kernel(one, other))


def spread(cells: Matrix, conditions: Labels) -> float | None:
    """Return the mean distance between two cells of one condition, averaged over conditions; at least 0.

    Best value: that of real cells. Less is mode collapse, more is noise. Conditions with one cell are left out;
    None if that leaves none.

    Examples
    --------
    >>> spread(np.array([[0.0], [2.0], [5.0]]), ["B", "B", "T"])
    2.0
    """
    names = np.asarray(conditions)
    distances = [pdist(cells[names == name]).mean() for name in np.unique(names) if (names == name).sum() > 1]
    return float(np.mean(distances)) if distances else None


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
    shares = [(a.listed - a.unknown) / a.listed if a.listed and not a.failure else 0.0 for a in answers]
    return float(np.mean(shares))


def duplicate_rate(answers: Sequence[Answer]) -> float | None:
    """Return the mean share of a cell's genes that repeat an earlier one, in [0, 1). Best value 0.

    Only answers that could be read count; None if there are none.

    Examples
    --------
    >>> duplicate_rate([Answer(("A", "B"), listed=5, unknown=1, repeated=2), Answer(("A",), listed=1)])
    0.25
    """
    shares = [a.repeated / (a.listed - a.unknown) for a in answers if not a.failure and a.listed > a.unknown]
    return float(np.mean(shares)) if shares else None


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


def _same_length(gold: Labels, predicted: Labels) -> None:
    if not len(gold) or len(gold) != len(predicted):
        raise ValueError(f"{len(gold)} gold labels and {len(predicted)} predicted ones")
