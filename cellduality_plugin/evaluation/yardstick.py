"""Real cells in the declared space: what generated ones are measured with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.evaluation.embedding import Embedding
from cellduality_plugin.evaluation.real_cells import RealCells


@dataclass(frozen=True)
class Yardstick:
    """Real cells in the declared space: what every column of the table is measured with.

    Parameters
    ----------
    embedding, bandwidth
        The space and the kernel width, both from real training cells.
    held_out, points
        Real cells of the split, and their points.
    train
        Real training cells, for the baselines.
    others, other_points
        Real cells that nothing was fitted to and that are not of this split: the floor of distances. None where only
        this split has such cells.
    neighbours
        The numbers of neighbours of the k-NN classifiers, the headline first.
    seed, resamples
        Of bootstrap intervals and of drawing real cells.
    """

    embedding: Embedding
    bandwidth: float
    held_out: RealCells
    points: NDArray[np.float64]
    train: RealCells
    others: RealCells | None
    other_points: NDArray[np.float64]
    neighbours: tuple[int, ...]
    seed: int
    resamples: int
