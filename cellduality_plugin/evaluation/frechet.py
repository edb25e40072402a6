"""scFID: the Fréchet distance of two samples of cells, each taken for a normal distribution."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.evaluation.distances import Matrix, in_order


def frechet_distance(one: Matrix, other: Matrix, *, shrinkage: bool = False) -> float:
    r"""Return the squared Fréchet distance of two samples, at least 0, in squared units of the space. Best value 0.

    .. math:: |\mu - \mu'|^2 + tr(S + S' - 2 (S S')^{1/2})

    Parameters
    ----------
    one, other
        Cells x dimensions, in one space.
    shrinkage
        Each covariance is that of Ledoit and Wolf, from two cells on; else the unbiased sample covariance (n - 1).

    Raises
    ------
    ValueError
        If a sample has no more cells than the space has dimensions (without shrinkage), or fewer than two.

    Notes
    -----
    Biased upwards for small samples. Values with and without shrinkage are not to be compared.

    Examples
    --------
    >>> frechet_distance(np.array([[0.0], [2.0]]), np.array([[3.0], [5.0]]))
    9.0
    """
    from sklearn.covariance import ledoit_wolf

    fewest, dimensions = min(len(one), len(other)), one.shape[1]
    if not shrinkage and fewest <= dimensions:
        raise ValueError(f"{fewest} cells in {dimensions} dimensions: more cells than dimensions, or shrinkage")
    if fewest < 2:
        raise ValueError(f"a covariance of {fewest} cells")
    one, other = in_order(one), in_order(other)
    apart = one.mean(axis=0) - other.mean(axis=0)
    ours, theirs = (
        ledoit_wolf(cells)[0] if shrinkage else np.atleast_2d(np.cov(cells, rowvar=False)) for cells in (one, other)
    )
    # tr (S S')^1/2 is the sum of the singular values of S^1/2 S'^1/2, which are real though S S' is not symmetric.
    shared = np.linalg.norm(_root(ours) @ _root(theirs), "nuc")
    return max(0.0, float(apart @ apart + np.trace(ours) + np.trace(theirs) - 2 * shared))


def frechet_resamples(
    one: Matrix, other: Matrix, ours: NDArray[np.int64], theirs: NDArray[np.int64], *, shrinkage: bool = False
) -> NDArray[np.float64]:
    """Return :func:`frechet_distance` for every resample: how often each cell of ``one`` and of ``other`` is in it.

    In place of singular values it takes roots of eigenvalues, which are faster and right to about 1e-7.
    """
    (centre, sample), (their_centre, their_sample) = (
        _moments(cells, counts, shrinkage=shrinkage) for cells, counts in ((one, ours), (other, theirs))
    )
    values, vectors = np.linalg.eigh(sample)
    root = (vectors * np.sqrt(np.clip(values, 0, None))[:, None]) @ vectors.transpose(0, 2, 1)
    shared = np.sqrt(np.clip(np.linalg.eigvalsh(root @ their_sample @ root), 0, None)).sum(axis=1)
    traces = np.trace(sample, axis1=1, axis2=2) + np.trace(their_sample, axis1=1, axis2=2)
    return np.asarray(np.maximum(0.0, np.sum((centre - their_centre) ** 2, axis=1) + traces - 2 * shared))


def _moments(cells: Matrix, counts: NDArray[np.int64], *, shrinkage: bool) -> tuple[Matrix, Matrix]:
    """Return mean and covariance of every resample."""
    n, dimensions = cells.shape
    means = counts @ cells / n
    sample = (cells.T * counts[:, None]) @ cells / n - means[:, :, None] * means[:, None]
    if not shrinkage:
        return means, sample * (n / (n - 1))
    scale = np.trace(sample, axis1=1, axis2=2) / dimensions
    squares = np.sum(sample**2, axis=(1, 2))
    away = squares - dimensions * scale**2
    lengths = np.sum(cells**2, axis=1) - 2 * means @ cells.T + np.sum(means**2, axis=1)[:, None]
    noise = (np.sum(counts * lengths**2, axis=1) / n - squares) / n
    share = np.divide(np.minimum(noise, away), away, out=np.zeros_like(away), where=away > 0)[:, None, None]
    return means, (1 - share) * sample + share * scale[:, None, None] * np.eye(dimensions)


def _root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T)
