"""Distances between cells, and between samples of them; their order changes no digit.

A distance of two samples (cells x dimensions, one space, none empty) returns a value for every resample, by how often
each cell of either is in it; without counts the one value of the samples themselves. All are biased upwards for small
samples: compare values of equal sizes, beside that of real against real cells. Optimal transport is solved by POT.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist, pdist

from cellduality_plugin.errors import needs_extra

Matrix: TypeAlias = NDArray[np.floating]
Vector: TypeAlias = NDArray[np.float64]
Counts: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]
"""How often each cell of one sample, and of the other, is in every resample: resamples x cells each."""

RESAMPLES = 100  # bootstrap samples of a distance or a shift

_MOST_STEPS = 10_000_000  # of the network simplex: far more than samples of thousands of cells need
_PLAIN: dict[str, Any] = {"center_dual": False, "check_marginals": False}  # only the plan or the cost is used


def in_order(cells: Matrix) -> Matrix:
    """Return the same points in an order of their own, so that the order they came in changes no last digit."""
    return np.asarray(cells[np.lexsort(cells.T[::-1])]) if cells.shape[1] else cells


def nearest_labels(distances: Matrix, labels: Sequence[str], k: int) -> list[str]:
    """Return the label of every query by uniform votes of the ``k`` nearest cells.

    ``distances`` are queries x labelled cells, infinite where a query must not see a cell. Of cells at one distance the
    first by label counts, of labels with equally many votes that of the nearest cell.
    """
    names, codes = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    chosen = np.empty(len(distances), dtype=np.int64)
    for query, row in enumerate(distances):
        nearest = codes[np.lexsort((codes, row))[:k]]
        votes = np.bincount(nearest, minlength=len(names))
        # `nearest` is in order of distance, so the first of the most voted labels is the one with the nearest cell.
        chosen[query] = nearest[np.argmax(votes[nearest] == votes.max())]
    return [str(name) for name in names[chosen]]


def median_bandwidth(cells: Matrix, seed: int, at_most: int = 1000) -> float:
    """Return the median distance between two ``cells``, or a seeded sample of them: sigma of the RBF kernel."""
    if len(cells) > at_most:
        cells = cells[np.random.default_rng(seed).choice(len(cells), at_most, replace=False)]
    return float(np.median(pdist(cells)))


def resampled(count: int, rng: np.random.Generator, resamples: int = RESAMPLES) -> NDArray[np.int64]:
    """Return how often each of ``count`` cells is in each bootstrap sample: resamples x cells."""
    return rng.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.int64)


def _counted(one: Matrix, other: Matrix, counts: Counts | None) -> tuple[Matrix, Matrix, Counts]:
    """Return both samples with how often each cell counts: once, in an order of their own, without ``counts``."""
    if counts is not None:
        return one, other, counts
    ours, theirs = (np.ones((1, len(cells)), dtype=np.int64) for cells in (one, other))
    return in_order(one), in_order(other), (ours, theirs)


def mmd(one: Matrix, other: Matrix, counts: Counts | None = None, *, bandwidth: float) -> Vector:
    r"""Return the squared maximum mean discrepancy, in [0, 2]. Best value 0.

    .. math:: MMD^2 = \frac{1}{n^2} \sum k(x, x') + \frac{1}{m^2} \sum k(y, y') - \frac{2}{n m} \sum k(x, y)

    with :math:`k(x, y) = \exp(-|x - y|^2 / 2 \sigma^2)` and sigma the ``bandwidth`` (above 0, else a ValueError): the
    biased V-statistic of Gretton et al. 2012, Eq. 5. pertpy's "mmd" with ``gamma=1 / (2 * bandwidth**2)``.
    """
    if not bandwidth > 0:
        raise ValueError(f"MMD with bandwidth {bandwidth}")
    one, other, (ours, theirs) = _counted(one, other, counts)
    left, right = ours / ours.sum(axis=1, keepdims=True), theirs / theirs.sum(axis=1, keepdims=True)
    within, beside, between = (
        np.sum((p @ np.exp(-cdist(x, y, "sqeuclidean") / (2 * bandwidth**2))) * q, axis=1)
        for x, y, p, q in ((one, one, left, left), (other, other, right, right), (one, other, left, right))
    )
    return np.asarray(np.maximum(0.0, within + beside - 2 * between))


def frechet(one: Matrix, other: Matrix, counts: Counts | None = None, *, shrinkage: bool = False) -> Vector:
    r"""Return the squared Fréchet distance of normal distributions (scFID), at least 0, in squared units. Best value 0.

    .. math:: |\mu - \mu'|^2 + tr(S + S' - 2 (S S')^{1/2})

    With ``shrinkage`` each covariance is that of Ledoit and Wolf; else the unbiased sample covariance (n - 1), which
    wants more cells than dimensions. Resamples are right to about 1e-7.
    """
    one, other, _ = _counted(one, other, counts)
    ours, theirs = counts or (None, None)
    centre, sample = _moments(one, ours, shrinkage=shrinkage)
    their_centre, their_sample = _moments(other, theirs, shrinkage=shrinkage)
    root = _root(sample)
    if counts is None:
        # tr (S S')^1/2 is the sum of the singular values of S^1/2 S'^1/2, which are real though S S' is not symmetric.
        shared = np.linalg.svd(root @ _root(their_sample), compute_uv=False).sum(axis=1)
    else:  # the same by eigenvalues, which are faster
        shared = np.sqrt(np.clip(np.linalg.eigvalsh(root @ their_sample @ root), 0, None)).sum(axis=1)
    traces = np.trace(sample, axis1=1, axis2=2) + np.trace(their_sample, axis1=1, axis2=2)
    return np.asarray(np.maximum(0.0, np.sum((centre - their_centre) ** 2, axis=1) + traces - 2 * shared))


def _moments(cells: Matrix, counts: NDArray[np.int64] | None, *, shrinkage: bool) -> tuple[Matrix, Matrix]:
    from sklearn.covariance import ledoit_wolf

    n, dimensions = cells.shape
    if counts is None:
        sample = ledoit_wolf(cells)[0] if shrinkage else np.atleast_2d(np.cov(cells, rowvar=False))
        return cells.mean(axis=0)[None], sample[None]
    means = counts @ cells / n
    sample = (cells.T * counts[:, None]) @ cells / n - means[:, :, None] * means[:, None]
    if not shrinkage:
        return means, sample * (n / (n - 1))
    # ledoit_wolf of all resamples at once
    scale = np.trace(sample, axis1=1, axis2=2) / dimensions
    squares = np.sum(sample**2, axis=(1, 2))
    away = squares - dimensions * scale**2
    lengths = np.sum(cells**2, axis=1) - 2 * means @ cells.T + np.sum(means**2, axis=1)[:, None]
    noise = (np.sum(counts * lengths**2, axis=1) / n - squares) / n
    share = np.divide(np.minimum(noise, away), away, out=np.zeros_like(away), where=away > 0)[:, None, None]
    return means, (1 - share) * sample + share * scale[:, None, None] * np.eye(dimensions)


def _root(covariance: Matrix) -> Matrix:
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.sqrt(np.clip(values, 0, None))[:, None]) @ vectors.transpose(0, 2, 1))


def wasserstein(one: Matrix, other: Matrix, counts: Counts | None = None) -> Vector:
    r"""Return the Wasserstein-1 distance, at least 0, in units of the space. Best value 0.

    .. math:: W_1 = \min_T \sum_{ij} T_{ij} |x_i - y_j|, \quad T 1 = 1/n, \quad T^\top 1 = 1/m

    Exact (network simplex), of Euclidean distances. pertpy's "wasserstein" is regularized, of squared distances.
    """
    solve = _solver("emd2")
    one, other, counts = _counted(one, other, counts)
    cost = cdist(one, other)
    costs = ((p, q, cost[np.ix_(left, right)]) for left, right, p, q in _weighted(counts))
    return np.asarray([float(solve(*each, numItermax=_MOST_STEPS, **_PLAIN)) for each in costs])


def gromov_wasserstein(one: Matrix, other: Matrix, counts: Counts | None = None) -> Vector:
    r"""Return the Gromov-Wasserstein discrepancy, at least 0, in squared units. Best value 0.

    .. math:: GW = \min_T \sum_{ijkl} (|x_i - x_k| - |y_j - y_l|)^2 T_{ij} T_{kl}

    It compares shapes alone: samples may be in different spaces. An upper bound of the least: the lower of two ends of
    conditional gradients, from the product of the masses and, in a common space, from the plan of :func:`wasserstein`.
    """
    solve = _solver("emd")
    one, other, counts = _counted(one, other, counts)
    within, beside = cdist(one, one), cdist(other, other)
    between = cdist(one, other) if one.shape[1] == other.shape[1] else None
    found: list[float] = []
    for left, right, p, q in _weighted(counts):
        starts = [np.outer(p, q)]
        if between is not None:
            starts.append(solve(p, q, between[np.ix_(left, right)], numItermax=_MOST_STEPS, **_PLAIN))
        shapes = within[np.ix_(left, left)], beside[np.ix_(right, right)]
        found.append(max(0.0, min(_descended(*shapes, p, q, start, solve) for start in starts)))
    return np.asarray(found)


def _weighted(counts: Counts) -> Iterator[tuple[Any, Any, Vector, Vector]]:
    """Yield of every resample the cells in it and their masses."""
    for ours, theirs in zip(*counts, strict=True):
        left, right = np.flatnonzero(ours), np.flatnonzero(theirs)
        yield left, right, ours[left] / ours.sum(), theirs[right] / theirs.sum()


def _descended(one: Matrix, other: Matrix, p: Vector, q: Vector, plan: Matrix, solve: Any) -> float:
    """Return where the conditional gradient ends: POT's ``gromov_wasserstein2`` to the last digit, three times as fast.

    What POT spends on duals and checks, most of its time for small samples, is not used here.
    """
    twice = 2 * other
    masses = (one**2) @ p[:, None] @ np.ones((1, len(q))) + np.ones((len(p), 1)) @ (q[None] @ (other**2).T)
    half = masses - one @ plan @ twice.T  # of the gradient
    loss = np.sum(half * plan)
    for _ in range(10_000):
        step = solve(p, q, 2 * half, numItermax=100_000, **_PLAIN) - plan
        bend = one @ step @ twice.T
        a, b = -np.sum(bend * step), -2 * np.sum(bend * plan)
        length = min(1.0, max(0.0, -b / (2 * a))) if a > 0 else float(a + b < 0)
        before, loss = loss, loss + a * length**2 + b * length
        plan = plan + length * step
        if abs(loss - before) < 1e-9 * max(1.0, abs(loss)):
            break
        half = masses - one @ plan @ twice.T
    return float(loss)


def _solver(name: str) -> Any:
    os.environ.setdefault("POT_BACKEND_DISABLE_PYTORCH", "1")  # importing torch takes seconds, and cells are NumPy's
    with needs_extra("eval"):
        import ot
    return getattr(ot, name)


def dissimilarities(cells: Sequence[Sequence[str]]) -> Vector:
    """Return 1 - RWJS of every two ``cells``, the mean of both ways: cells x cells, in [0, 1]."""
    column = {gene: place for place, gene in enumerate(dict.fromkeys(gene for cell in cells for gene in cell))}
    weights = np.zeros((len(cells), len(column)))
    for row, cell in enumerate(cells):
        weights[row, [column[gene] for gene in cell]] = 1 / np.arange(1, len(cell) + 1)
    mine = weights @ (weights > 0).T.astype(float)  # [i, j]: the weight in i of the genes that j has, too
    total = weights.sum(axis=1)
    one_way = np.divide((mine + mine.T) / 2, total[:, None] + total - mine.T, out=np.ones_like(mine), where=total > 0)
    return np.asarray(np.clip(1 - (one_way + one_way.T) / 2, 0, 1))


def mean_within(groups: Sequence[Matrix]) -> float | None:
    """Return the mean entry off the diagonal of symmetric matrices, each counting with its size; None without any."""
    if not groups:
        return None
    means = [np.sort(group, axis=None).sum() / (len(group) * (len(group) - 1)) for group in groups]
    return float(np.average(means, weights=[len(group) for group in groups]))


def resamples_within(groups: Sequence[Matrix], counts: Sequence[NDArray[np.int64]]) -> Vector:
    """Return :func:`mean_within` for every resample of each group; a cell and itself are no pair."""
    found = []
    for group, drawn in zip(groups, counts, strict=True):
        pairs = len(group) ** 2 - np.sum(drawn**2, axis=1)
        sums = np.sum((drawn @ group) * drawn, axis=1)
        mean = group.sum() / (len(group) * (len(group) - 1))
        found.append(np.divide(sums, pairs, out=np.full(len(drawn), mean), where=pairs > 0))
    return np.asarray(np.average(found, axis=0, weights=[len(group) for group in groups]))
