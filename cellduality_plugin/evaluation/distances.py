"""Measures of generated cells among real ones, in an embedding: k-NN agreement, MMD, spread."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist, pdist

from cellduality_plugin.evaluation.metrics import Labels

Matrix: TypeAlias = NDArray[np.floating]


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
    """Return the mean distance between two cells of one condition; at least 0.

    Best value: that of real cells. Less is mode collapse, more is noise. Every condition counts with its number of
    cells; conditions with one cell are left out, and None is returned if that leaves none.

    Examples
    --------
    >>> spread(np.array([[0.0], [2.0], [5.0]]), ["B", "B", "T"])
    2.0
    """
    names, counts = np.unique(np.asarray(conditions, dtype=str), return_counts=True)
    groups = [cells[np.asarray(conditions) == name] for name in names[counts > 1]]
    if not groups:
        return None
    return float(np.average([pdist(group).mean() for group in groups], weights=[len(group) for group in groups]))
