"""Measures of a perturbation's effect: the shift from control cells to perturbed ones, gene by gene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.evaluation.embedding import cell_matrix, rank_profile

Vector = NDArray[np.float64]
Places = NDArray[np.int64]


def mean_profile(cells: Sequence[Sequence[str]], genes: Sequence[str], top: int) -> Vector:
    """Return the mean weight of every gene over ``cells``, each in [0, 1]: one value a gene.

    Parameters
    ----------
    cells
        Ranked genes, descending, unique.
    genes
        The vocabulary: the order of the result.
    top
        K, the length of a cell sentence at the most.

    Raises
    ------
    ValueError
        If there are no cells.

    Examples
    --------
    >>> mean_profile([("B", "A"), ("A",)], ("A", "B", "C"), top=3).round(2).tolist()
    [0.75, 0.5, 0.0]
    """
    if not cells:
        raise ValueError("no cells")
    return np.asarray(cell_matrix(cells, genes, top).mean(axis=0)).ravel()


def strongest(shift: Vector, count: int) -> Places:
    """Return the places of the ``count`` genes that ``shift`` moves most, either way; equals in the order of genes.

    Examples
    --------
    >>> strongest(np.array([0.1, -0.5, 0.0, 0.3]), 2).tolist()
    [1, 3]
    """
    return np.argsort(-np.abs(shift), kind="stable")[:count]


def differential(perturbed: Vector, control: Vector, count: int) -> Places:
    """Return the places of the ``count`` genes with the largest absolute Welch t; equals in the order of genes.

    Parameters
    ----------
    perturbed, control
        Real cells x genes: a proxy of log-expression such as the weights of
        :func:`cellduality_plugin.evaluation.embedding.cell_matrix`. At least two cells each.
    count
        How many genes.

    Raises
    ------
    ValueError
        If either side has fewer than two cells.

    Notes
    -----
    The test of scanpy's ``rank_genes_groups(method="t-test", rankby_abs=True)`` with the control cells as reference.

    Examples
    --------
    >>> differential(np.array([[1.0, 0.0], [0.9, 0.5]]), np.array([[0.1, 0.4], [0.0, 0.2]]), 1).tolist()
    [0]
    """
    return np.argsort(-np.abs(welch_t(perturbed, control)), kind="stable")[:count]


def welch_t(perturbed: Vector, control: Vector) -> Vector:
    """Return Welch's t of every gene (column): 0 where neither mean nor variance differs, infinite without variance.

    Raises
    ------
    ValueError
        If either side has fewer than two cells.

    Examples
    --------
    >>> welch_t(np.array([[2.0, 1.0], [4.0, 1.0]]), np.array([[0.0, 1.0], [2.0, 1.0]])).round(3).tolist()
    [1.414, 0.0]
    """
    if min(len(perturbed), len(control)) < 2:
        raise ValueError(f"a t-test of {len(perturbed)} and {len(control)} cells")
    apart = perturbed.mean(axis=0) - control.mean(axis=0)
    error = np.sqrt(perturbed.var(axis=0, ddof=1) / len(perturbed) + control.var(axis=0, ddof=1) / len(control))
    limit = np.where(apart == 0, 0.0, np.copysign(np.inf, apart))
    return np.asarray(np.divide(apart, error, out=limit, where=error > 0))


def shift_correlation(real: Vector, predicted: Vector, count: int, genes: Places | None = None) -> float | None:
    """Return Pearson's correlation of two shifts over the ``count`` genes that really move most, in [-1, 1]. Best 1.

    None if either shift is the same for all of these genes: "no change" points nowhere.

    Parameters
    ----------
    real, predicted
        Mean profile of perturbed cells minus mean profile of the control cells, one value a gene.
    count
        How many genes.
    genes
        The places of other genes to look at instead, e.g. of :func:`differential`.

    Notes
    -----
    Over all genes this is cell-eval's ``pearson_delta``, and :func:`shift_error` its ``mse_delta``.

    Examples
    --------
    >>> shift_correlation(np.array([1.0, -1.0, 0.0]), np.array([0.5, -0.5, 0.3]), 2)
    1.0
    >>> shift_correlation(np.array([1.0, -1.0]), np.zeros(2), 2) is None
    True
    """
    chosen = strongest(real, count) if genes is None else genes
    one, other = real[chosen] - real[chosen].mean(), predicted[chosen] - predicted[chosen].mean()
    scale = float(np.sqrt((one @ one) * (other @ other)))
    return float(np.clip(one @ other / scale, -1, 1)) if scale > 0 else None


def shift_error(real: Vector, predicted: Vector, count: int, genes: Places | None = None) -> float:
    """Return the mean squared error of a shift over the ``count`` genes that really move most, in [0, 4]. Best 0.

    Parameters
    ----------
    real, predicted, count, genes
        As in :func:`shift_correlation`.

    Examples
    --------
    >>> shift_error(np.array([1.0, -1.0, 0.0]), np.array([0.5, -0.5, 9.0]), 2)
    0.25
    """
    chosen = strongest(real, count) if genes is None else genes
    return float(np.mean((real[chosen] - predicted[chosen]) ** 2))


def moved_cell(cell: Sequence[str], shift: Vector, genes: Sequence[str], top: int) -> tuple[str, ...]:
    """Return ``cell`` after ``shift``: as many genes as before, those of the highest weight, descending.

    Parameters
    ----------
    cell
        Ranked genes of a control cell.
    shift
        What is added to its profile, one value a gene.
    genes, top
        As in :func:`mean_profile`. Equal weights are ranked by the order of ``genes``.

    Examples
    --------
    >>> moved_cell(("B", "A"), np.array([0.9, 0.0, -0.1]), ("A", "B", "C"), top=3)
    ('A', 'B')
    """
    weights = shift.copy()
    place = {gene: index for index, gene in enumerate(genes)}
    kept = list(cell[:top])
    weights[[place[gene] for gene in kept]] += rank_profile(top)[: len(kept)]
    return tuple(genes[index] for index in np.argsort(-weights, kind="stable")[: len(kept)])


def mean_shift(
    cells: Mapping[tuple[str, str], Sequence[Sequence[str]]],
    perturbation: str,
    control: str,
    genes: Sequence[str],
    top: int,
    *,
    leave_out: str = "",
) -> Vector | None:
    """Return the mean over cell types of the shift that ``perturbation`` makes; None if no type has both states.

    Parameters
    ----------
    cells
        Ranked cells by (cell type, perturbation).
    perturbation, control
        The two states.
    genes, top
        As in :func:`mean_profile`.
    leave_out
        A cell type not to learn from: the one the shift is to be applied to.
    """
    types = sorted({kind for kind, state in cells if state == perturbation and kind != leave_out})
    shifts = [
        mean_profile(cells[kind, perturbation], genes, top) - mean_profile(cells[kind, control], genes, top)
        for kind in types
        if cells.get((kind, control)) and cells.get((kind, perturbation))
    ]
    return np.asarray(np.mean(shifts, axis=0)) if shifts else None
