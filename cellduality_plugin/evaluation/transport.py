"""Optimal transport between two samples of cells: Wasserstein and Gromov-Wasserstein distances, solved by POT."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.distances import Matrix, in_order

_MOST_STEPS = 10_000_000  # of the network simplex: far more than samples of thousands of cells need


def wasserstein(one: Matrix, other: Matrix) -> float:
    r"""Return the Wasserstein-1 distance of two samples (ValueError if one is empty), at least 0. Best value 0.

    .. math:: W_1 = \min_T \sum_{ij} T_{ij} |x_i - y_j|, \quad T 1 = 1/n, \quad T^\top 1 = 1/m

    Parameters
    ----------
    one, other
        Cells x dimensions, in one space.
    Notes
    -----
    Exact (network simplex), with the Euclidean distance as cost. Biased upwards for small samples. pertpy's distance
    "wasserstein" is another: regularized (Sinkhorn), of squared distances.

    Examples
    --------
    >>> wasserstein(np.array([[0.0], [1.0]]), np.array([[3.0], [2.0]]))
    2.0
    """
    _not_empty(one, other)
    return float(_pot().emd2([], [], cdist(in_order(one), in_order(other)), numItermax=_MOST_STEPS))


def wasserstein_resamples(
    one: Matrix, other: Matrix, ours: NDArray[np.int64], theirs: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return :func:`wasserstein` for every resample: how often each cell of ``one`` and of ``other`` is in it."""
    solver, cost = _pot().emd2, cdist(one, other)
    return np.asarray(
        [
            float(solver(*masses, cost[np.ix_(left, right)], numItermax=_MOST_STEPS, check_marginals=False))
            for left, right, masses in _drawn(ours, theirs)
        ]
    )


def gromov_wasserstein(one: Matrix, other: Matrix) -> float:
    r"""Return the Gromov-Wasserstein discrepancy of two samples (ValueError if one is empty), at least 0. Best 0.

    .. math:: GW = \min_T \sum_{ijkl} (|x_i - x_k| - |y_j - y_l|)^2 T_{ij} T_{kl}

    It compares the shapes of the samples alone: a sample that is shifted or turned has the value 0.

    Parameters
    ----------
    one, other
        Cells x dimensions; the spaces need not be the same.
    Notes
    -----
    Square loss, Euclidean distances as they are, uniform masses. The problem is not convex: POT's conditional gradient
    starts from the product of the masses and, in a common space, from the plan of :func:`wasserstein`; the lower end
    counts, an upper bound of the least.

    Examples
    --------
    >>> gromov_wasserstein(np.array([[0.0], [1.0]]), np.array([[6.0], [5.0]]))
    0.0
    """
    _not_empty(one, other)
    one, other = in_order(one), in_order(other)
    masses = [np.full(len(cells), 1 / len(cells)) for cells in (one, other)]
    return _lower_end(cdist(one, one), cdist(other, other), _apart(one, other), *masses)


def gromov_wasserstein_resamples(
    one: Matrix, other: Matrix, ours: NDArray[np.int64], theirs: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return :func:`gromov_wasserstein` for every resample: how often each cell of ``one`` and of ``other`` is in it.

    A cell that is drawn twice has twice the mass, which is the same problem and a smaller one.
    """
    within, beside, apart = cdist(one, one), cdist(other, other), _apart(one, other)
    found = []
    for left, right, masses in _drawn(ours, theirs):
        between = None if apart is None else apart[np.ix_(left, right)]
        found.append(_lower_end(within[np.ix_(left, left)], beside[np.ix_(right, right)], between, *masses))
    return np.asarray(found)


def _drawn(
    ours: NDArray[np.int64], theirs: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], tuple[Matrix, Matrix]]]:
    """Yield of every resample the places of the cells that are in it, on either side, and their masses."""
    for row, column in zip(ours, theirs, strict=True):
        left, right = np.flatnonzero(row), np.flatnonzero(column)
        yield left, right, (row[left] / row.sum(), column[right] / column.sum())


def _apart(one: Matrix, other: Matrix) -> Matrix | None:
    """Return the distances from one sample to the other; None if they are in different spaces."""
    return cdist(one, other) if one.shape[1] == other.shape[1] else None


def _lower_end(within: Matrix, beside: Matrix, apart: Matrix | None, ours: Matrix, theirs: Matrix) -> float:
    pot, starts = _pot(), [None]
    if apart is not None:
        starts.append(pot.emd(ours, theirs, apart, numItermax=_MOST_STEPS, check_marginals=False))
    ends = [pot.gromov.gromov_wasserstein2(within, beside, ours, theirs, symmetric=True, G0=start) for start in starts]
    return max(0.0, float(min(ends)))


def _not_empty(one: Matrix, other: Matrix) -> None:
    if not len(one) or not len(other):
        raise ValueError(f"optimal transport of {len(one)} to {len(other)} cells")


def _pot() -> ModuleType:
    try:
        import ot
    except ImportError as error:
        raise CellDualityError(
            "POT, which solves optimal transport, is not installed",
            where="Wasserstein distances",
            mend='pip install "cellduality[eval]"',
        ) from error
    module: ModuleType = ot
    return module
