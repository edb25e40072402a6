"""From predictions and real cells to metrics: which numbers a checkpoint, a baseline and real cells have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from cellduality_plugin.evaluation import distances, metrics
from cellduality_plugin.evaluation.distances import Matrix, by_condition, resamples_within
from cellduality_plugin.evaluation.metrics import Better, Metric, bootstrap_interval, centred_interval, mean_interval
from cellduality_plugin.evaluation.populations import RESAMPLES, Sample, population_metrics
from cellduality_plugin.evaluation.predictions import Prediction
from cellduality_plugin.evaluation.real_cells import matched
from cellduality_plugin.evaluation.winners import BY_CONSTRUCTION
from cellduality_plugin.evaluation.yardstick import Yardstick

__all__ = [
    "Yardstick",
    "cell_metrics",
    "dual_similarity",
    "failures",
    "gold_and_predicted",
    "label_metrics",
    "real_metrics",
]

ESTIMATORS = {
    "accuracy": "share of cells with the gold label",
    "macro_f1": "F1, unweighted mean over the labels that gold holds",
    "dual": "similarity of what was hidden and what was rebuilt, mean over answers, 0 where nothing could be read",
    "validity": "share of an answer's words that are genes of the vocabulary, mean over answers, 0 if unreadable",
    "duplicates": "share of a cell's genes that repeat an earlier one, mean over answers that could be read",
    "distinct": "different cells over cells",
}
"""What is averaged over what, of metrics that need no space."""
_FORM: dict[str, tuple[Better, float]] = {"validity": ("higher", 1.0), "duplicates": ("lower", 0.0)}
_REAL_DRAWS = 4  # of real cells for the floor of distances
_RESAMPLED_CELLS_REPEAT = "no interval: cells drawn with replacement repeat each other"


def label_metrics(gold: Sequence[str], predicted: Sequence[str], yardstick: Yardstick) -> dict[str, Metric]:
    """Return accuracy and macro-F1 with their intervals (best value 1 each)."""
    interval = partial(bootstrap_interval, seed=yardstick.seed, resamples=yardstick.resamples)
    # In an order of their own: the resamples, hence the interval, are those of any other order.
    gold, predicted = zip(*sorted(zip(gold, predicted, strict=True)), strict=True)
    n, codes = len(gold), {label: code for code, label in enumerate(sorted({*gold, *predicted}))}
    truth, answers = (np.array([codes[label] for label in labels]) for labels in (gold, predicted))
    found = {}
    for name, measure in (("accuracy", metrics.accuracy), ("macro_f1", metrics.macro_f1)):
        value = measure(gold, predicted)
        found[name] = Metric(
            value, "higher", 1.0, n, interval(measure, truth, answers), estimator=ESTIMATORS[name], seed=yardstick.seed
        )
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
    # In an order of their own, so that not even the last digit depends on the one they came in.
    made = sorted((p.id, p.similarity) for p in predictions)
    rows, values = [row for row, _ in made], np.array([value for _, value in made])
    interval = mean_interval(values, rows, yardstick.seed, yardstick.resamples)
    return Metric(
        float(values.mean()),
        "higher",
        1.0,
        len(values),
        interval,
        estimator=ESTIMATORS["dual"],
        seed=yardstick.seed,
    )


def cell_metrics(predictions: Sequence[Prediction], yardstick: Yardstick) -> dict[str, Metric]:
    """Return the metrics of generated cells; what each was asked to be is what the real cell of its row is called."""
    name_of = yardstick.held_out.name_of
    # In an order of their own, so that not even the last digit or an interval depends on the one they came in.
    predictions = sorted(predictions, key=lambda p: (p.id, p.sample, p.answer or ()))
    readable = [p for p in predictions if p.answer]
    cells = [tuple(p.answer or ()) for p in readable]
    conditions = [name_of.get(p.id, str(p.unknown)) for p in readable]
    rows = [p.id for p in readable] + [p.id for p in predictions if not p.answer]
    points = yardstick.embedding(cells)
    found = {
        f"knn_agreement_{k}": yardstick.agreement(points, conditions, k, rows, itself=False)
        for k in yardstick.neighbours
    }
    found |= _form(predictions, yardstick)
    found |= _variety(cells, points, conditions, yardstick)
    asked = list({p.id: name_of.get(p.id, str(p.unknown)) for p in predictions}.values())
    samples = np.array([p.sample for p in readable])
    chosen = matched(yardstick.held_out.names, asked, np.random.default_rng(yardstick.seed))
    real = yardstick.points[chosen], np.asarray(yardstick.held_out.names)[chosen].tolist()
    draws = [
        ((points[samples == draw], [c for c, d in zip(conditions, samples, strict=True) if d == draw]), real)
        for draw in np.unique(samples)
    ]
    return found | population_metrics(draws, yardstick, f"against {len(chosen)} real held-out cells")


def real_metrics(asked: Sequence[str], yardstick: Yardstick) -> dict[str, Metric]:
    """Return what real cells score: the ceiling, or floor, of every metric of generated cells.

    Distances are those of the held-out cells to as many others; where no others are of these types, of one half of the
    held-out cells to the other half.

    Parameters
    ----------
    asked
        The condition of every generation row.
    """
    held_out, n = yardstick.held_out, len(yardstick.held_out)
    found = {
        f"knn_agreement_{k}": yardstick.agreement(yardstick.points, held_out.names, k, held_out.ids, itself=True)
        for k in yardstick.neighbours
    }
    for name, (better, best) in _FORM.items():
        found[name] = Metric(best, better, best, n, estimator=ESTIMATORS[name], note=BY_CONSTRUCTION)
    found |= _variety(held_out.genes, yardstick.points, held_out.names, yardstick)
    rng = np.random.default_rng(yardstick.seed)
    chosen = matched(held_out.names, asked, np.random.default_rng(yardstick.seed))
    real = _sample(yardstick.points, held_out.names, chosen)
    if yardstick.others is None:
        split = [_halves(real[1], rng) for _ in range(_REAL_DRAWS)]
        pairs = [(_sample(*real, one), _sample(*real, other)) for one, other in split]
        note = f"one half of {len(chosen)} real held-out cells against the other: fewer cells, hence more noise"
        return found | population_metrics(pairs, yardstick, note)
    names = yardstick.others.names
    draws = [_sample(yardstick.other_points, names, matched(names, real[1], rng)) for _ in range(_REAL_DRAWS)]
    note = f"other real cells against {len(chosen)} real held-out cells"
    return found | population_metrics([(draw, real) for draw in draws], yardstick, note)


def _form(predictions: Sequence[Prediction], yardstick: Yardstick) -> dict[str, Metric]:
    """Return how well-formed answers are, and how often the cells that could be read repeat a gene."""
    found = {}
    answers = [p.as_answer() for p in predictions]
    for name, rate, shares in (
        ("validity", metrics.validity_rate, metrics.validity_shares),
        ("duplicates", metrics.duplicate_rate, metrics.duplicate_shares),
    ):
        by_row = [(p.id, each) for p, answer in zip(predictions, answers, strict=True) for each in shares([answer])]
        (better, best), interval, note = _FORM[name], None, "no answer could be read"
        if by_row:
            rows, values = zip(*by_row, strict=True)
            interval, note = mean_interval(values, rows, yardstick.seed, yardstick.resamples), ""
        value, n, estimator = rate(answers), len(by_row), ESTIMATORS[name]
        found[name] = Metric(value, better, best, n, interval, estimator=estimator, seed=yardstick.seed, note=note)
    return found


def _sample(points: Matrix, names: Sequence[str], places: NDArray[np.int64]) -> Sample:
    return points[places], np.asarray(names, dtype=str)[places].tolist()


def _halves(names: Sequence[str], rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the places of two halves, with equally many cells of each name in either."""
    own = [rng.permutation(np.flatnonzero(np.asarray(names) == name)) for name in sorted(set(names))]
    one = [places[: len(places) // 2] for places in own]
    other = [places[len(places) // 2 : 2 * (len(places) // 2)] for places in own]
    return np.concatenate(one), np.concatenate(other)


def _variety(
    cells: Sequence[tuple[str, ...]], points: Matrix, conditions: Sequence[str], yardstick: Yardstick
) -> dict[str, Metric]:
    """Return how much cells differ: mode collapse lowers all three."""
    n, rng = len(cells), np.random.default_rng(yardstick.seed)
    groups = by_condition(conditions)
    note = f"interval of {RESAMPLES} resamples within types, centred" if groups else "no two cells of one type"

    def among(apart: Sequence[Matrix], value: float | None, high: float | None, space: str, estimator: str) -> Metric:
        interval, bounds = None, (0.0, high)
        if value is not None:
            interval = centred_interval(value, resamples_within(apart, rng, RESAMPLES), *bounds)
        seed = yardstick.seed
        return Metric(value, "like real cells", None, n, interval, space, estimator, "", seed, note, bounds)

    apart = [cdist(points[own], points[own]) for own in groups]
    unlike = [distances.dissimilarities([cells[place] for place in own]) for own in groups]
    pairs = "mean over pairs within a type"
    return {
        "distinct": Metric(
            metrics.distinct_rate(cells) if cells else None,
            "higher",
            1.0,
            n,
            estimator=ESTIMATORS["distinct"],
            note=_RESAMPLED_CELLS_REPEAT if cells else "no answer could be read",
        ),
        "spread": among(
            apart,
            distances.spread(points, conditions),
            None,
            yardstick.embedding.name,
            f"Euclidean distance, {pairs}",
        ),
        "diversity": among(
            unlike, distances.diversity(cells, conditions), 1.0, "ranked genes", f"1 - RWJS both ways, {pairs}"
        ),
    }


def failures(predictions: Sequence[Prediction]) -> dict[str, int]:
    """Return how often each reason kept an answer or a reconstruction from being read."""
    primal = Counter(p.failure for p in predictions if p.failure)
    dual = Counter(f"dual_{p.dual_failure}" for p in predictions if p.dual_failure)
    return dict(sorted((primal + dual).items()))
