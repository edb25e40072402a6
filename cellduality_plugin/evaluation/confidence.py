"""Whether a confidence is true: calibration, selective prediction, and sets of labels by split conformal prediction."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellduality_plugin.evaluation.metrics.statistics import bootstrap_interval

Numbers: TypeAlias = NDArray[np.float64]

FORMAT, VERSION = "cellduality-confidence", 1
"""Of the file that `cellduality calibrate` writes and the report shows."""

BINS = 10
"""Bins of equal width of a calibration error."""


def reliability(confidence: ArrayLike, right: ArrayLike) -> list[dict[str, float]]:
    """Return of each of the :data:`BINS` that holds cells ``n``, mean ``confidence``, and ``accuracy``."""
    sure, hits = np.asarray(confidence, np.float64), np.asarray(right, np.float64)
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    return [
        {"n": int(own.sum()), "confidence": float(sure[own].mean()), "accuracy": float(hits[own].mean())}
        for own in (place == number for number in np.unique(place))
    ]


def calibration_error(confidence: ArrayLike, right: ArrayLike) -> float:
    """Return the calibration error in [0, 1]: the mean distance of confidence and accuracy over bins (Guo 2017)."""
    found = reliability(confidence, right)
    total = sum(each["n"] for each in found)
    return math.fsum(each["n"] * abs(each["confidence"] - each["accuracy"]) for each in found) / total


def risk_coverage(confidence: ArrayLike, right: ArrayLike) -> tuple[Numbers, Numbers]:
    """Return (coverage, risk): the share of cells that keep their label, most sure first, and that of wrong ones.

    Cells of equal confidence (to nine digits: the last ones are noise) count as equally right, whatever their order.
    """
    _, group = np.unique(-np.round(np.asarray(confidence, np.float64), 9), return_inverse=True)
    wrong = 1 - np.bincount(group, weights=np.asarray(right, np.float64)) / np.bincount(group)
    ranks = np.arange(1, len(group) + 1)
    return ranks / len(group), np.cumsum(wrong[np.sort(group)]) / ranks


def area_under_risk_coverage(confidence: ArrayLike, right: ArrayLike) -> float:
    """Return the AURC in [0, 1], lower is better: the mean risk over all coverages (Geifman 2019)."""
    return float(risk_coverage(confidence, right)[1].mean())


def conformal_threshold(scores: ArrayLike, coverage: float) -> float:
    """Return the score that a new one, exchangeable with these, does not exceed with probability ``coverage`` or more.

    The ceil((n + 1) x coverage)-th smallest of the n scores (Vovk 2005); infinite where they are too few.
    """
    ordered = np.sort(np.asarray(scores, np.float64))
    place = math.ceil(round((len(ordered) + 1) * coverage, 9))  # 10 x 0.9 is 9, not a little more
    return float(ordered[place - 1]) if place <= len(ordered) else math.inf


def coverage_of_sets(count: int, coverage: float) -> tuple[float, float]:
    """Return (mean, standard deviation) of what such a threshold covers on many new cells, over draws of the scores.

    It follows a beta distribution (Vovk 2012). Enough scores are taken for granted.

    Examples
    --------
    >>> [round(number, 3) for number in coverage_of_sets(128, 0.9)]
    [0.907, 0.025]
    """
    place = math.ceil(round((count + 1) * coverage, 9))
    mean = place / (count + 1)
    return mean, math.sqrt(mean * (1 - mean) / (count + 2))


def label_sets(probabilities: ArrayLike, threshold: float) -> NDArray[np.bool_]:
    """Return which labels are in the set of each cell: those whose 1 - probability is no more than ``threshold``.

    ``probabilities`` are cells x labels. The likeliest label is always in, so that no set is empty.
    """
    shares = np.asarray(probabilities, np.float64)
    inside: NDArray[np.bool_] = (1 - shares <= threshold) | (shares == shares.max(axis=1, keepdims=True))
    return inside


def confidence_metrics(confidence: ArrayLike, right: ArrayLike, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Return ``accuracy``, ``ece`` (calibration error) and ``aurc``: each with its 95 % interval over cells."""
    measures = {"ece": calibration_error, "aurc": area_under_risk_coverage}
    found = {name: _with_interval(of, confidence, right, seed=seed) for name, of in measures.items()}
    return {"accuracy": _with_interval(np.mean, right, seed=seed), **found}


def set_metrics(inside: NDArray[np.bool_], truth: ArrayLike, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Return ``set_coverage``, the share of cells whose set holds column ``truth``, and mean ``set_size``."""
    held = inside[np.arange(len(inside)), np.asarray(truth)]
    columns = {"set_coverage": held, "set_size": inside.sum(axis=1)}
    return {name: _with_interval(np.mean, column, seed=seed) for name, column in columns.items()}


def _with_interval(measure: Callable[..., Any], *columns: ArrayLike, seed: int) -> dict[str, Any]:
    arrays = [np.asarray(column, np.float64) for column in columns]
    return {"value": float(measure(*arrays)), "interval": list(bootstrap_interval(measure, *arrays, seed=seed))}
