"""Optimal transport between samples of cells, solved by POT; as in :mod:`cellduality_plugin.evaluation.distances`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from cellduality_plugin.errors import needs_extra
from cellduality_plugin.evaluation.distances import Counts, Matrix, Vector, drawn

_MOST_STEPS = 10_000_000  # of the network simplex: far more than samples of thousands of cells need
_PLAIN: dict[str, Any] = {"center_dual": False, "check_marginals": False}  # only the plan or the cost is used


def wasserstein(one: Matrix, other: Matrix, counts: Counts | None = None) -> Vector:
    r"""Return the Wasserstein-1 distance, at least 0, in units of the space. Best value 0.

    .. math:: W_1 = \min_T \sum_{ij} T_{ij} |x_i - y_j|, \quad T 1 = 1/n, \quad T^\top 1 = 1/m

    Exact (network simplex), of Euclidean distances. pertpy's "wasserstein" is regularized, of squared distances.

    Examples
    --------
    >>> wasserstein(np.array([[0.0], [1.0]]), np.array([[3.0], [2.0]])).tolist()
    [2.0]
    """
    solve = _solver("emd2")
    one, other, counts = drawn(one, other, counts)
    cost = cdist(one, other)
    costs = ((p, q, cost[np.ix_(left, right)]) for left, right, p, q in _weighted(counts))
    return np.asarray([float(solve(*each, numItermax=_MOST_STEPS, **_PLAIN)) for each in costs])


def gromov_wasserstein(one: Matrix, other: Matrix, counts: Counts | None = None) -> Vector:
    r"""Return the Gromov-Wasserstein discrepancy, at least 0, in squared units. Best value 0.

    .. math:: GW = \min_T \sum_{ijkl} (|x_i - x_k| - |y_j - y_l|)^2 T_{ij} T_{kl}

    It compares the shapes of the samples alone, which may be in different spaces. The problem is not convex: the
    conditional gradient starts from the product of the masses and, in a common space, from the plan of
    :func:`wasserstein`; the lower end counts, an upper bound of the least.

    Examples
    --------
    >>> gromov_wasserstein(np.array([[0.0], [1.0]]), np.array([[6.0], [5.0]])).tolist()
    [0.0]
    """
    solve = _solver("emd")
    one, other, counts = drawn(one, other, counts)
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
    """Yield of every resample the cells in it and their masses: one drawn twice has twice the mass."""
    for ours, theirs in zip(*counts, strict=True):
        left, right = np.flatnonzero(ours), np.flatnonzero(theirs)
        yield left, right, ours[left] / ours.sum(), theirs[right] / theirs.sum()


def _descended(one: Matrix, other: Matrix, p: Vector, q: Vector, plan: Matrix, solve: Any) -> float:
    """Return where the conditional gradient ends: the ``gromov_wasserstein2`` of POT to the last digit.

    It takes a third of the time, which for small samples goes into duals and checks that are not used here.
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
