"""How votes and rewards become a probability that is true: fitted on cells whose labels are known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import softmax

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.confidence import conformal_threshold, label_sets
from cellduality_plugin.evaluation.rounds.labelling import Opinion

UNNAMED = 0.1  # votes that each label has before any answer: one that no answer named stays possible
LEAST = 1e-12  # the lowest reward that counts: of the product over a whole cell's genes anything less is noise
FEWEST = 20  # labels below which nothing is fitted
FOLDS = 5  # of cells: what a score is under was fitted to the other folds
_RIDGE = 0.01


@dataclass(frozen=True)
class Exponents:
    r"""Probabilities of labels: a conditional logit.

    .. math:: p(y) \propto e^{d(y)} (n(y) + 0.1)^a \, r(y)^b \, s(y)^c

    with n the votes, r the reward of each label, and s how likely it is by class profiles, where the model has any; of
    a greedy answer one vote, and how likely each label is without reasoning. Together the exponents, at least 0, are a
    temperature; their ratio is what a judge is worth in votes. The offsets d say which labels are given too readily.
    """

    votes: float
    reward: float
    profiles: float = 0.0
    offsets: tuple[float, ...] = ()  # by label, in the order of the labels; none: 0

    def probabilities(self, opinions: Sequence[Opinion], labels: Sequence[str]) -> NDArray[np.float64]:
        """Return cells x labels; rows sum to 1."""
        return self._shares(_features(opinions, labels))

    def _shares(self, seen: NDArray[np.float64]) -> NDArray[np.float64]:
        offsets = self.offsets or (0.0,) * seen.shape[1]
        return np.asarray(
            softmax(seen @ np.array([self.votes, self.reward, self.profiles]) + np.array(offsets), axis=-1)
        )


@dataclass(frozen=True)
class Calibration:
    """What cells whose labels are known taught about confidence."""

    confidence: Exponents  # fitted to all cells
    scores: tuple[float, ...]  # 1 - p(true label) of each cell, under a fit to other cells, ascending
    labels: int  # how many cells

    def threshold(self, coverage: float) -> float:
        """Return how much 1 - p may be of a label in a set; a CellDualityError if there are too few scores."""
        if np.isinf(found := conformal_threshold(self.scores, coverage)):
            what = f"{len(self.scores)} cells have a score for sets of labels, too few for a coverage of {coverage:g}"
            hint = "calibrate again with more --cells, or ask for less"
            raise CellDualityError(what, code="too-few-labels", where="--coverage", hint=hint)
        return found

    def inside(self, opinions: Sequence[Opinion], labels: Sequence[str], coverage: float) -> NDArray[np.bool_]:
        """Return which labels are in the set of each cell, cells x labels."""
        return label_sets(self.confidence.probabilities(opinions, labels), self.threshold(coverage))

    @classmethod
    def of_notes(cls, notes: Mapping[str, Any], task: str, asked: str) -> Calibration | None:
        """Return that of a task, as it was ``asked``, in a model's notes (there as ``asdict`` has it), or None.

        Of an earlier version, whose scores belong to a fit of their own, it has no scores.
        """
        found = notes.get("calibration", {}).get(task, {}).get(asked)
        if not found:
            return None
        own = dict(found["confidence"])
        confidence = Exponents(**own | {"offsets": tuple(own.get("offsets", ()))})
        return cls(confidence, () if "sets" in found else tuple(found["scores"]), found["labels"])


def fit(opinions: Sequence[Opinion], truth: Sequence[str], labels: Sequence[str]) -> Calibration:
    """Return the calibration by cells in random order: one fit to all, and a score of each by a fit to other cells.

    A CellDualityError if there are fewer than :data:`FEWEST` cells.
    """
    if len(truth) < FEWEST:
        what, hint = f"{len(truth)} cells with a label, of {FEWEST} at least", "prepare more, or raise --cells"
        raise CellDualityError(what, code="too-few-labels", where="--cells", hint=hint)
    seen, true = _features(opinions, labels), np.array([labels.index(each) for each in truth])
    fold, scores = np.arange(len(true)) % FOLDS, np.empty(len(true))
    for own in (fold == number for number in range(FOLDS)):
        shares = _exponents(seen[~own], true[~own])._shares(seen[own])
        scores[own] = 1 - shares[np.arange(len(shares)), true[own]]
    return Calibration(_exponents(seen, true), tuple(np.sort(scores).tolist()), len(true))


def _features(opinions: Sequence[Opinion], labels: Sequence[str]) -> NDArray[np.float64]:
    """Return log votes, rewards and profiles, cells x labels x 3; 0 for all where nobody judged."""

    def logs(each: Mapping[str, float], absent: float, least: float) -> list[float]:
        return [math.log(max(each.get(label, absent), least)) for label in labels]

    return np.array(
        [
            (
                logs({label: count + UNNAMED for label, count in each.votes.items()}, UNNAMED, UNNAMED),
                logs(each.rewards, 1.0, LEAST),
                logs(each.profiles, 1.0, LEAST),
            )
            for each in opinions
        ]
    ).swapaxes(1, 2)


def _exponents(seen: NDArray[np.float64], true: NDArray[np.int64]) -> Exponents:
    """Return the exponents under which the true labels are likeliest, by L-BFGS; a ridge keeps them near 0."""
    rows, (_, count, sources) = np.arange(len(true)), seen.shape

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        shares = softmax(seen @ weights[:sources] + weights[sources:], axis=-1)
        surprise = -np.log(np.maximum(shares[rows, true], 1e-300)).mean()
        shares[rows, true] -= 1
        slope = np.concatenate([np.einsum("cl,clf->f", shares, seen), shares.sum(axis=0)]) / len(true)
        return float(surprise + _RIDGE / 2 * weights @ weights), slope + _RIDGE * weights

    start, bounds = [0.5, 0.1, 0.1] + [0.0] * count, [(0, None)] * sources + [(None, None)] * count
    votes, reward, profiles, *offsets = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B").x.tolist()
    return Exponents(votes, reward, profiles, tuple(offsets))
