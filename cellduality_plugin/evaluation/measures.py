"""From predictions and real cells to metrics: which numbers a checkpoint, a baseline and real cells have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from cellduality_plugin.evaluation import distances, metrics
from cellduality_plugin.evaluation.embedding import Embedding
from cellduality_plugin.evaluation.metrics import Metric, bootstrap_interval
from cellduality_plugin.evaluation.predictions import Prediction
from cellduality_plugin.evaluation.real_cells import RealCells, matched

LEAST_CELLS_OF_A_TYPE = 10
"""Types with fewer cells on either side are left out of the MMD within types."""


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

    def distance(self, value: float | None, n: int, note: str = "") -> Metric:
        """Return ``value`` as an MMD in this space."""
        kernel = f"RBF, sigma {self.bandwidth:.4g} (median distance of real training cells)"
        estimator = "MMD^2, biased V-statistic, mean over draws"
        return Metric(value, "lower", 0.0, n, None, self.embedding.name, estimator, kernel, self.seed, note)

    def agreement(
        self, points: NDArray[np.float64], labels: Sequence[str], k: int, unreadable: int, *, itself: bool
    ) -> Metric:
        """Return the k-NN agreement of ``points``; with ``itself`` they are the held-out cells, left out in turn."""
        n = len(points) + unreadable
        estimator = f"{k}-NN, uniform votes" + (", leave-one-out" if itself else "")
        if k > len(self.held_out) - 1:
            note = f"only {len(self.held_out)} real cells"
            return Metric(None, "higher", 1.0, n, None, self.embedding.name, estimator, note=note)
        apart = cdist(points, self.points)
        if itself:
            np.fill_diagonal(apart, np.inf)
        named = distances.nearest_labels(apart, self.held_out.names, k)
        right = np.append(named == np.asarray(labels, dtype=str), np.zeros(unreadable, dtype=bool))
        interval = bootstrap_interval(_share, right, seed=self.seed, resamples=self.resamples)
        return Metric(_share(right), "higher", 1.0, n, interval, self.embedding.name, estimator, seed=self.seed)


def _share(right: NDArray[np.bool_]) -> float:
    return float(np.mean(right))


def label_metrics(gold: Sequence[str], predicted: Sequence[str], yardstick: Yardstick) -> dict[str, Metric]:
    """Return accuracy and macro-F1 with their intervals (best value 1 each)."""
    interval = partial(bootstrap_interval, seed=yardstick.seed, resamples=yardstick.resamples)
    n, codes = len(gold), {label: code for code, label in enumerate(sorted({*gold, *predicted}))}
    truth, answers = (np.array([codes[label] for label in labels]) for labels in (gold, predicted))
    found = {}
    for name, measure in (("accuracy", metrics.accuracy), ("macro_f1", metrics.macro_f1)):
        value = measure(gold, predicted)
        found[name] = Metric(value, "higher", 1.0, n, interval(measure, truth, answers), seed=yardstick.seed)
    return found


def gold_and_predicted(predictions: Sequence[Prediction]) -> tuple[list[str], list[str]]:
    """Return gold labels and answers, an unreadable answer as an empty string; rows without gold are left out."""
    gold, predicted = [], []
    for p in predictions:
        if isinstance(p.gold, str):
            gold.append(p.gold)
            predicted.append(p.answer if isinstance(p.answer, str) else "")
    return gold, predicted


def dual_similarity(predictions: Sequence[Prediction], yardstick: Yardstick) -> Metric:
    """Return the mean similarity of what was hidden and what was rebuilt, in [0, 1]; failures count 0. Best 1."""
    values = np.array([p.similarity for p in predictions])
    interval = bootstrap_interval(_share, values, seed=yardstick.seed, resamples=yardstick.resamples)
    return Metric(float(values.mean()), "higher", 1.0, len(values), interval, seed=yardstick.seed)


def cell_metrics(predictions: Sequence[Prediction], yardstick: Yardstick) -> dict[str, Metric]:
    """Return the metrics of generated cells; what each was asked to be is what the real cell of its row is called."""
    name_of = yardstick.held_out.name_of
    readable = [p for p in predictions if p.answer]
    cells = [tuple(p.answer or ()) for p in readable]
    conditions = [name_of.get(p.id, str(p.unknown)) for p in readable]
    answers = [p.as_answer() for p in predictions]
    n, space = len(predictions), yardstick.embedding.name
    points = yardstick.embedding(cells)
    found = {
        f"knn_agreement_{k}": yardstick.agreement(points, conditions, k, n - len(readable), itself=False)
        for k in yardstick.neighbours
    }
    found["validity"] = Metric(metrics.validity_rate(answers), "higher", 1.0, n)
    found["duplicates"] = Metric(metrics.duplicate_rate(answers), "lower", 0.0, len(readable))
    found["distinct"] = Metric(metrics.distinct_rate(cells) if cells else None, "higher", 1.0, len(readable))
    found["spread"] = Metric(distances.spread(points, conditions), "like real cells", None, len(readable), space=space)
    asked = list({p.id: name_of.get(p.id, str(p.unknown)) for p in predictions}.values())
    draws = np.array([p.sample for p in readable])
    groups = [
        (points[draws == draw], [c for c, d in zip(conditions, draws, strict=True) if d == draw])
        for draw in np.unique(draws)
    ]
    return found | distribution_metrics(groups, asked, yardstick)


def distribution_metrics(
    groups: Sequence[tuple[NDArray[np.float64], Sequence[str]]], asked: Sequence[str], yardstick: Yardstick
) -> dict[str, Metric]:
    """Return the MMD of generated cells to real ones, over all types and within them (best value 0).

    Parameters
    ----------
    groups
        For each draw the points and their conditions: one draw is of the size of the real sample, so that the bias
        of the estimator is that of the real-against-real floor.
    asked
        The condition of every row; real cells are drawn in these proportions.
    """
    chosen = matched(yardstick.held_out.names, asked, np.random.default_rng(yardstick.seed))
    real, types = yardstick.points[chosen], np.asarray(yardstick.held_out.names)[chosen]
    overall, within, sizes = [], [], []
    for points, conditions in groups:
        kept = matched(conditions, types.tolist())
        names = np.asarray(conditions)[kept]
        if len(kept):
            sizes.append(len(kept))
            overall.append(distances.mmd(points[kept], real, yardstick.bandwidth))
        for label in np.unique(names):
            ours, theirs = points[kept][names == label], real[types == label]
            if min(len(ours), len(theirs)) >= LEAST_CELLS_OF_A_TYPE:
                within.append(distances.mmd(ours, theirs, yardstick.bandwidth))
    n = round(float(np.mean(sizes))) if sizes else 0
    note = f"against {len(real)} real held-out cells"
    few = f"mean over types with at least {LEAST_CELLS_OF_A_TYPE} cells, " + note
    return {
        "mmd": yardstick.distance(float(np.mean(overall)) if overall else None, n, note),
        "mmd_within_types": yardstick.distance(float(np.mean(within)) if within else None, n, few),
    }


def real_metrics(asked: Sequence[str], yardstick: Yardstick) -> dict[str, Metric]:
    """Return what real cells score: the ceiling, or floor, of every metric of generated cells.

    Parameters
    ----------
    asked
        The condition of every generation row.
    """
    held_out, space = yardstick.held_out, yardstick.embedding.name
    n = len(held_out)
    found = {
        f"knn_agreement_{k}": yardstick.agreement(yardstick.points, held_out.names, k, 0, itself=True)
        for k in yardstick.neighbours
    }
    found["validity"] = Metric(1.0, "higher", 1.0, n, note="by construction")
    found["duplicates"] = Metric(0.0, "lower", 0.0, n, note="by construction")
    found["distinct"] = Metric(metrics.distinct_rate(held_out.genes), "higher", 1.0, n)
    real_spread = distances.spread(yardstick.points, held_out.names)
    found["spread"] = Metric(real_spread, "like real cells", None, n, space=space)
    if yardstick.others is None:  # kinds of cells that no other split has: nothing to hold them against
        return found
    names = np.asarray(yardstick.others.names)
    wanted = np.asarray(held_out.names)[matched(held_out.names, asked)].tolist()
    rng = np.random.default_rng(yardstick.seed)
    draws = [matched(names, wanted, rng) for _ in range(4)]
    groups = [(yardstick.other_points[draw], names[draw].tolist()) for draw in draws]
    return found | distribution_metrics(groups, asked, yardstick)


def failures(predictions: Sequence[Prediction]) -> dict[str, int]:
    """Return how often each reason kept an answer or a reconstruction from being read."""
    primal = Counter(p.failure for p in predictions if p.failure)
    dual = Counter(f"dual_{p.dual_failure}" for p in predictions if p.dual_failure)
    return dict(sorted((primal + dual).items()))
