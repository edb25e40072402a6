"""Metrics of written cells: agreement with their condition, form, distances to real ones as populations, variety."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from cellduality_plugin.evaluation import distances
from cellduality_plugin.evaluation.distances import RESAMPLES, Matrix
from cellduality_plugin.evaluation.metrics.given import LEAST_CELLS_OF_A_TYPE, NEIGHBOURS, Cells, Pair, Places
from cellduality_plugin.evaluation.metrics.registry import BY_CONSTRUCTION, Measurement, group, metric
from cellduality_plugin.evaluation.metrics.statistics import CENTRED, centred_interval, mean_of

POSITIVE = (0.0, None)
MMD, SCFID = "MMD^2, biased V-statistic, mean over draws", "Fréchet distance of normal distributions, squared"
SHAPES = "Gromov-Wasserstein, square loss, Euclidean distances unscaled, lower of two conditional gradients"
_MOST_DIMENSIONS = 64  # up to which scFID of a hundred resamples takes a second or so
# Gromov-Wasserstein takes 5 ms, of 200 cells ten times that: for each resample, type and draw.
_DRAWS_OF_SHAPES, _MOST_CELLS_OF_SHAPES = 40, 200


def measure(cells: Cells) -> dict[str, Measurement]:
    """Return every metric of cells. A function may return a number, a measurement, or several by a parameter."""
    found: dict[str, Measurement] = {}
    for each in group("cells"):
        result = each.of(cells)
        for parameter, one in result.items() if isinstance(result, dict) else [(None, result)]:
            if not isinstance(one, Measurement):
                one = Measurement(float(one), n=len(cells), note="no interval")
            found[each.key if parameter is None else f"{each.key}_{parameter}"] = each.measurement(one)
    return found


@metric("knn_agreement", "k-NN agreement", "higher", headline=f"knn_agreement_{NEIGHBOURS[0]}", sums_up=True)
def knn_agreement(cells: Cells) -> dict[int, Measurement]:
    """Return the share of cells that the k nearest real ones take for their condition, by k.

    Answers that could not be read are wrong. Real cells are classified by the others, never by themselves.
    """
    reference, real = cells.reference, cells.answers is None
    apart = cdist(cells.points, reference.points)
    if real:
        np.fill_diagonal(apart, np.inf)
    found = {}
    for k in reference.neighbours:
        estimator = f"{k}-NN, uniform votes" + (", leave-one-out" if real else "")
        how: dict[str, Any] = {"space": reference.embedding.name, "estimator": estimator}
        if k > len(reference.held_out) - 1:
            note = f"only {len(reference.held_out)} real cells"
            found[k] = Measurement(None, n=len(cells.rows), seed=reference.seed, note=note, **how)
            continue
        named = distances.nearest_labels(apart, reference.held_out.names, k)
        right = [own == asked for own, asked in zip(named, cells.names, strict=True)]
        unread = [False] * (len(cells.rows) - len(cells))
        found[k] = mean_of([*zip(cells.rows, right + unread, strict=True)], reference, **how)
    return found


@metric(
    "validity", "validity", "higher",
    estimator="share of an answer's words that are genes of the vocabulary, mean over answers, 0 if unreadable",
)  # fmt: skip
def validity(cells: Cells) -> Measurement:
    if cells.answers is None:
        return Measurement(1.0, n=len(cells), note=BY_CONSTRUCTION)
    shares = [((p.listed - p.unknown_words) / p.listed if p.listed and not p.failure else 0.0) for p in cells.answers]
    return mean_of([(p.id, share) for p, share in zip(cells.answers, shares, strict=True)], cells.reference)


@metric(
    "duplicates", "duplicate genes", "lower",
    estimator="share of a cell's genes that repeat an earlier one, mean over answers that could be read",
)  # fmt: skip
def duplicates(cells: Cells) -> Measurement:
    if cells.answers is None:
        return Measurement(0.0, n=len(cells), note=BY_CONSTRUCTION)
    answers = [(p, p.listed - p.unknown_words) for p in cells.answers if not p.failure]
    return mean_of([(p.id, p.repeated / genes) for p, genes in answers if genes > 0], cells.reference)


@metric("mmd", "MMD²", "lower", bounds=(0.0, 2.0), estimator=MMD)
def mmd(cells: Cells) -> Measurement:
    return _mmd(cells, (cells.all_types, cells.against))


@metric("mmd_within_types", "MMD² within types", "lower", bounds=(0.0, 2.0), estimator=MMD)
def mmd_within_types(cells: Cells) -> Measurement:
    return _mmd(cells, _by_type(cells))


@metric(
    "wasserstein", "W1 within types", "lower", bounds=POSITIVE,
    estimator="Wasserstein-1, exact, Euclidean cost, mean over draws",
)  # fmt: skip
def wasserstein(cells: Cells) -> Measurement:
    return _mean_distance(cells, _by_type(cells), distances.wasserstein)


@metric("gromov_wasserstein", "GW within types", "lower", bounds=POSITIVE, estimator=f"{SHAPES}, mean over draws")
def gromov_wasserstein(cells: Cells) -> Measurement:
    used = _by_type(cells)
    most = max((max(len(one), len(other)) for pairs in used[0] for one, other, _ in pairs), default=0)
    count = _DRAWS_OF_SHAPES if most <= _MOST_CELLS_OF_SHAPES else 0
    return _mean_distance(cells, used, distances.gromov_wasserstein, count)


@metric("scfid", "scFID", "lower", bounds=POSITIVE, estimator=f"{SCFID}, sample covariance, mean over draws")
def scfid(cells: Cells) -> Measurement:
    used = _by_type(cells, more_than=cells.reference.points.shape[1])
    return _mean_distance(cells, used, distances.frechet, _scfid_resamples(cells))


@metric(
    "scfid_shrunk", "scFID, shrunk", "lower", bounds=POSITIVE,
    estimator=f"{SCFID}, Ledoit-Wolf covariance, mean over draws",
)  # fmt: skip
def scfid_shrunk(cells: Cells) -> Measurement:
    return _mean_distance(cells, _by_type(cells), partial(distances.frechet, shrinkage=True), _scfid_resamples(cells))


Used: TypeAlias = tuple[Sequence[Sequence[Pair]], str]  # the pairs of each draw that a distance is over, and a note


def _mmd(cells: Cells, used: Used) -> Measurement:
    width = cells.reference.bandwidth
    kernel = f"RBF, sigma {width:.4g} (median distance of real training cells)"
    return _mean_distance(cells, used, partial(distances.mmd, bandwidth=width), kernel=kernel)


def _scfid_resamples(cells: Cells) -> int:
    return RESAMPLES if cells.reference.points.shape[1] <= _MOST_DIMENSIONS else 0


def _by_type(cells: Cells, more_than: int = 0) -> Used:
    """Return of each draw the types that have cells enough on either side."""
    more_than = max(more_than, LEAST_CELLS_OF_A_TYPE - 1)
    used = [[pair for pair in pairs if min(len(pair[0]), len(pair[1])) > more_than] for pairs in cells.pairs]
    types = len({name for _, (_, names) in cells.draws for name in names})
    most = max(map(len, used), default=0)
    return used, f"mean over {most} of {types} types, those with more than {more_than} cells, {cells.against}"


def _mean_distance(
    cells: Cells, used: Used, distance: Callable[..., NDArray[np.float64]], count: int = RESAMPLES, kernel: str = ""
) -> Measurement:
    """Return the mean of ``distance`` over all pairs, with the interval of ``count`` resamples; 0 are too expensive."""
    pairs, note, interval = [pair for draw in used[0] for pair in draw], used[1], None
    value = float(np.mean([distance(one, other)[0] for one, other, _ in pairs])) if pairs else None
    if value is not None and count:
        resamples = [distance(one, other, (ours[:count], theirs[:count])) for one, other, (ours, theirs) in pairs]
        interval = centred_interval(value, np.mean(resamples, axis=0), low=0.0)
        note += f"; interval of {count} resamples within types, centred"
    elif value is not None:
        note += "; no interval: too many cells or dimensions to resample"
    n = round(float(np.mean([len(one) for ((one, _, _),) in cells.all_types]))) if cells.all_types else 0
    space, seed = cells.reference.embedding.name, cells.reference.seed
    return Measurement(value, n=n, interval=interval, space=space, kernel=kernel, seed=seed, note=note)


@metric("distinct", "distinct cells", "higher", estimator="different cells over cells")
def distinct(cells: Cells) -> Measurement:
    if not len(cells):
        return Measurement(None, note="no answer could be read")
    value = len(set(cells.genes)) / len(cells)
    return Measurement(value, n=len(cells), note="no interval: cells drawn with replacement repeat each other")


@metric("diversity", "diversity", "like real cells", estimator="1 - RWJS both ways, mean over pairs within a type")
def diversity(cells: Cells) -> Measurement:
    unlike = [distances.dissimilarities([cells.genes[place] for place in own]) for own in cells.groups]
    return _among(cells, unlike, cells.group_resamples[1], 1.0, "ranked genes")


@metric(
    "spread", "spread within types", "like real cells", bounds=POSITIVE,
    estimator="Euclidean distance, mean over pairs within a type",
)  # fmt: skip
def spread(cells: Cells) -> Measurement:
    apart = [cdist(cells.points[own], cells.points[own]) for own in cells.groups]
    return _among(cells, apart, cells.group_resamples[0], None, cells.reference.embedding.name)


def _among(
    cells: Cells, apart: Sequence[Matrix], counts: Sequence[Places], high: float | None, space: str
) -> Measurement:
    """Return the mean over pairs within types, with its interval; mode collapse lowers it."""
    value, interval, note = distances.mean_within(apart), None, "no two cells of one type"
    if value is not None:
        interval, note = centred_interval(value, distances.resamples_within(apart, counts), 0.0, high), CENTRED
    return Measurement(value, n=len(cells), interval=interval, space=space, seed=cells.reference.seed, note=note)
