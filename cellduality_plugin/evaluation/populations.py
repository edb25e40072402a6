"""Distances of generated cells to real ones as populations: MMD, Wasserstein, Gromov-Wasserstein and scFID."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.evaluation.distances import Matrix, in_order, mmd, mmd_resamples, resampled
from cellduality_plugin.evaluation.frechet import frechet_distance, frechet_resamples
from cellduality_plugin.evaluation.metrics import Metric, centred_interval
from cellduality_plugin.evaluation.real_cells import matched
from cellduality_plugin.evaluation.transport import (
    gromov_wasserstein,
    gromov_wasserstein_resamples,
    wasserstein,
    wasserstein_resamples,
)
from cellduality_plugin.evaluation.yardstick import Yardstick

LEAST_CELLS_OF_A_TYPE = 10
"""Types with fewer cells on either side are left out of the distances within types."""
RESAMPLES = 100
"""Bootstrap samples of a distance."""
_MOST_DIMENSIONS = 64  # up to which scFID of a hundred resamples takes a second or so
# Gromov-Wasserstein takes 5 ms, of 200 cells ten times that: for each resample, type and draw.
_DRAWS_OF_SHAPES, _MOST_CELLS_OF_SHAPES = 40, 200

Counts: TypeAlias = NDArray[np.int64]
Sample: TypeAlias = tuple[Matrix, Sequence[str]]
"""Points, and the name of each."""


@dataclass(frozen=True)
class Pair:
    """The generated and the real cells of one name (or of all), and how often each is in every bootstrap sample."""

    ours: Matrix
    theirs: Matrix
    our_counts: Counts
    their_counts: Counts

    @property
    def least(self) -> int:
        """The number of cells of the smaller side."""
        return min(len(self.ours), len(self.theirs))


@dataclass(frozen=True)
class Measure:
    """A distance of two samples.

    Parameters
    ----------
    of
        The distance.
    resamples
        The distance of every bootstrap sample; None where that is not affordable.
    estimator, kernel
        As in :class:`cellduality_plugin.evaluation.metrics.Metric`.
    more_than
        How many cells are too few on either side.
    most
        The largest value there can be; None without bound.
    draws, resampled_to
        How many bootstrap samples, and of how many cells of a type at the most.
    """

    of: Callable[[Matrix, Matrix], float]
    resamples: Callable[[Matrix, Matrix, Counts, Counts], NDArray[np.float64]] | None
    estimator: str
    kernel: str = ""
    more_than: int = LEAST_CELLS_OF_A_TYPE - 1
    most: float | None = None
    draws: int = RESAMPLES
    resampled_to: float = np.inf


def population_metrics(draws: Sequence[tuple[Sample, Sample]], yardstick: Yardstick, note: str) -> dict[str, Metric]:
    """Return the distances of generated cells to real ones, over all types and within them (best value 0 each).

    Parameters
    ----------
    draws
        For each draw the generated cells and the real ones. A draw is of the size of the real sample, so that the bias
        of the estimators is that of the real-against-real floor; generated cells beyond it are left out.
    note
        What the real cells are.
    """
    by_type = [_pairs(*draw, seeds=(yardstick.seed, place)) for place, draw in enumerate(draws)]
    types = len({name for _, (_, names) in draws for name in names})
    together = [[_together(pairs)] for pairs in by_type if pairs]
    n = round(float(np.mean([len(pair.ours) for (pair,) in together]))) if together else 0
    measures = _measures(yardstick)
    found = {"mmd": _metric(measures["mmd_within_types"], together, n, note, yardstick)}
    for name, measure in measures.items():
        used = [[pair for pair in pairs if pair.least > measure.more_than] for pairs in by_type]
        most = max((len(pairs) for pairs in used), default=0)
        over = f"mean over {most} of {types} types, those with more than {measure.more_than} cells, {note}"
        found[name] = _metric(measure, used, n, over, yardstick)
    return found


def _metric(measure: Measure, draws: Sequence[Sequence[Pair]], n: int, note: str, yardstick: Yardstick) -> Metric:
    """Return the mean of ``measure`` over all pairs, with its interval."""
    pairs = [pair for draw in draws for pair in draw]
    value = float(np.mean([measure.of(pair.ours, pair.theirs) for pair in pairs])) if pairs else None
    interval = None
    if value is not None and measure.resamples is not None and max(map(_most, pairs)) <= measure.resampled_to:
        drawn = [measure.resamples(*_resampled(pair, measure.draws)) for pair in pairs]
        interval = centred_interval(value, np.mean(drawn, axis=0), low=0.0)
        note += f"; interval of {measure.draws} resamples within types, centred"
    elif value is not None:
        note += "; no interval: too many cells or dimensions to resample"
    estimator = f"{measure.estimator}, mean over draws"
    space = yardstick.embedding.name
    bounds = (0.0, measure.most)
    return Metric(value, "lower", 0.0, n, interval, space, estimator, measure.kernel, yardstick.seed, note, bounds)


def _most(pair: Pair) -> int:
    return max(len(pair.ours), len(pair.theirs))


def _resampled(pair: Pair, draws: int) -> tuple[Matrix, Matrix, Counts, Counts]:
    return pair.ours, pair.theirs, pair.our_counts[:draws], pair.their_counts[:draws]


def _measures(yardstick: Yardstick) -> dict[str, Measure]:
    width, dimensions = yardstick.bandwidth, yardstick.points.shape[1]
    affordable = dimensions <= _MOST_DIMENSIONS
    scfid = "Fréchet distance of normal distributions, squared"
    return {
        "mmd_within_types": Measure(
            partial(mmd, bandwidth=width),
            lambda one, other, ours, theirs: mmd_resamples(one, other, width, ours, theirs),
            "MMD^2, biased V-statistic",
            f"RBF, sigma {width:.4g} (median distance of real training cells)",
            most=2.0,
        ),
        "wasserstein": Measure(wasserstein, wasserstein_resamples, "Wasserstein-1, exact, Euclidean cost"),
        "gromov_wasserstein": Measure(
            gromov_wasserstein,
            gromov_wasserstein_resamples,
            "Gromov-Wasserstein, square loss, Euclidean distances unscaled, lower of two conditional gradients",
            draws=_DRAWS_OF_SHAPES,
            resampled_to=_MOST_CELLS_OF_SHAPES,
        ),
        "scfid": Measure(
            frechet_distance,
            frechet_resamples if affordable else None,
            f"{scfid}, sample covariance",
            more_than=max(dimensions, LEAST_CELLS_OF_A_TYPE - 1),
        ),
        "scfid_shrunk": Measure(
            partial(frechet_distance, shrinkage=True),
            partial(frechet_resamples, shrinkage=True) if affordable else None,
            f"{scfid}, Ledoit-Wolf covariance",
        ),
    }


def _pairs(ours: Sample, theirs: Sample, *, seeds: tuple[int, int]) -> list[Pair]:
    """Return the cells type by type, in the proportions of the real ones; types without generated cells are left out.

    ``seeds`` are that of the evaluation and that of the draw. Real cells are the same in every draw: so are, with the
    first seed alone, their resamples.
    """
    names = np.asarray(theirs[1], dtype=str)
    kept = matched(ours[1], names.tolist())
    points, labels = ours[0][kept], np.asarray(ours[1], dtype=str)[kept]
    found = []
    for place, name in enumerate(np.unique(names)):
        one, other = in_order(points[labels == name]), in_order(theirs[0][names == name])
        if len(one):
            our_counts = resampled(len(one), np.random.default_rng([*seeds, place]), RESAMPLES)
            their_counts = resampled(len(other), np.random.default_rng([seeds[0], place]), RESAMPLES)
            found.append(Pair(one, other, our_counts, their_counts))
    return found


def _together(pairs: Sequence[Pair]) -> Pair:
    return Pair(
        np.concatenate([pair.ours for pair in pairs]),
        np.concatenate([pair.theirs for pair in pairs]),
        np.concatenate([pair.our_counts for pair in pairs], axis=1),
        np.concatenate([pair.their_counts for pair in pairs], axis=1),
    )
