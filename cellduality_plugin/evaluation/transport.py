"""Optimal transport between samples of cells, solved by POT; as in :mod:`cellduality_plugin.evaluation.distances`."""

from __future__ import annotations

from types import ModuleType

import numpy as np
from scipy.spatial.distance import cdist

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.distances import Counts, Matrix, Vector, drawn

_MOST_STEPS = 10_000_000  # of the network simplex: far more than samples of thousands of cells need


def wasserstein(one: Matrix, other: Matrix, counts: Counts | None = None) -> Vector:
    r"""Return the Wasserstein-1 distance, at least 0, in units of the space. Best value 0.

    .. math:: W_1 = \min_T \sum_{ij} T_{ij} |x_i - y_j|, \quad T 1 = 1/n, \quad T^\top 1 = 1/m

    Exact (network simplex), of Euclidean distances. pertpy's "wasserstein" is regularized, of squared distances.

    Examples
    --------
    >>> wasserstein(np.array([[0.0], [1.0]]), np.array([[3.0], [2.0]])).tolist()
    [2.0]
    """
    one, other, counts = drawn(one, other, counts)
    solver, cost = _pot().emd2, cdist(one, other)
    found: list[float] = []
    for ours, theirs in zip(*counts, strict=True):
        left, right = np.flatnonzero(ours), np.flatnonzero(theirs)
        masses = ours[left] / ours.sum(), theirs[right] / theirs.sum()
        found.append(float(solver(*masses, cost[np.ix_(left, right)], numItermax=_MOST_STEPS, check_marginals=False)))
    return np.asarray(found)


def gromov_wasserstein(one: Matrix, other: Matrix, counts: Counts | None = None) -> Vector:
    r"""Return the Gromov-Wasserstein discrepancy, at least 0, in squared units. Best value 0.

    .. math:: GW = \min_T \sum_{ijkl} (|x_i - x_k| - |y_j - y_l|)^2 T_{ij} T_{kl}

    It compares the shapes of the samples alone, which may be in different spaces. The problem is not convex: POT's
    conditional gradient starts from the product of the masses and, in a common space, from the plan of
    :func:`wasserstein`; the lower end counts, an upper bound of the least.

    Examples
    --------
    >>> gromov_wasserstein(np.array([[0.0], [1.0]]), np.array([[6.0], [5.0]])).tolist()
    [0.0]
    """
    one, other, counts = drawn(one, other, counts)
    pot, within, beside = _pot(), cdist(one, one), cdist(other, other)
    found: list[float] = []
    between = cdist(one, other) if one.shape[1] == other.shape[1] else None
    for ours, theirs in zip(*counts, strict=True):
        # A cell that is drawn twice has twice the mass, which is the same problem and a smaller one.
        left, right = np.flatnonzero(ours), np.flatnonzero(theirs)
        masses = ours[left] / ours.sum(), theirs[right] / theirs.sum()
        starts: list[Matrix | None] = [None]
        if between is not None:
            apart = between[np.ix_(left, right)]
            starts.append(pot.emd(*masses, apart, numItermax=_MOST_STEPS, check_marginals=False))
        shapes = within[np.ix_(left, left)], beside[np.ix_(right, right)]
        ends = (pot.gromov.gromov_wasserstein2(*shapes, *masses, symmetric=True, G0=start) for start in starts)
        found.append(max(0.0, float(min(ends))))
    return np.asarray(found)


def _pot() -> ModuleType:
    try:
        import ot
    except ImportError as error:
        what, hint = "POT, which solves optimal transport, is not installed", 'pip install "cellduality[eval]"'
        raise CellDualityError(what, where="Wasserstein distances", hint=hint) from error
    module: ModuleType = ot
    return module
