"""Real cells in the declared space: what generated ones are measured with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from cellduality_plugin.evaluation import distances
from cellduality_plugin.evaluation.embedding import Embedding
from cellduality_plugin.evaluation.metrics import Metric, mean_interval
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
        Real cells that neither the space nor a model was fitted to, and that are not of this split: the floor of
        distances. Training cells would not do: they spread wider than new ones along the axes that they chose.
        None where only this split has such cells.
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

    def agreement(
        self, points: NDArray[np.float64], labels: Sequence[str], k: int, rows: Sequence[str], *, itself: bool
    ) -> Metric:
        """Return the k-NN agreement of ``points``; with ``itself`` they are the held-out cells, left out in turn.

        ``rows`` holds the row of each point, then those of answers that could not be read, which count as wrong.
        """
        n = len(rows)
        estimator = f"{k}-NN, uniform votes" + (", leave-one-out" if itself else "")
        if k > len(self.held_out) - 1:
            note = f"only {len(self.held_out)} real cells"
            return Metric(None, "higher", 1.0, n, None, self.embedding.name, estimator, seed=self.seed, note=note)
        apart = cdist(points, self.points)
        if itself:
            np.fill_diagonal(apart, np.inf)
        named = distances.nearest_labels(apart, self.held_out.names, k)
        right = np.append(named == np.asarray(labels, dtype=str), np.zeros(n - len(points), dtype=bool))
        interval = mean_interval(right, rows, self.seed, self.resamples)
        return Metric(float(right.mean()), "higher", 1.0, n, interval, self.embedding.name, estimator, seed=self.seed)
