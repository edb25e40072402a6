"""How votes and rewards become a probability that is true: fitted on cells whose labels are known."""

from __future__ import annotations

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

UNNAMED = 0.1
"""Votes that each label has before any answer: one that no answer named stays possible."""
LEAST = 1e-12
"""The lowest reward that counts: of the product over a whole cell's genes anything less is noise."""
FEWEST = 20
"""Labels below which nothing is fitted."""
_RIDGE = 0.01


@dataclass(frozen=True)
class Exponents:
    r"""Probabilities of labels: a conditional logit.

    .. math:: p(y) \propto (n(y) + 0.1)^a \, r(y)^b

    with n the votes and r the reward of each label; of a greedy answer one vote, and how likely each label is without
    reasoning. Together the exponents, at least 0, are a temperature; their ratio is what rewards are worth in votes.
    """

    votes: float
    reward: float

    def probabilities(self, opinions: Sequence[Opinion], labels: Sequence[str]) -> NDArray[np.float64]:
        """Return cells x labels; rows sum to 1."""
        return np.asarray(softmax(_features(opinions, labels) @ np.array([self.votes, self.reward]), axis=-1))


@dataclass(frozen=True)
class Calibration:
    """What cells whose labels are known taught about confidence."""

    confidence: Exponents  # fitted to all cells
    sets: Exponents  # fitted to a third of them, for sets of labels
    scores: tuple[float, ...]  # 1 - p(true label) under ``sets`` of the other cells, ascending: split conformal
    labels: int  # how many cells

    def threshold(self, coverage: float) -> float:
        """Return how much 1 - p may be of a label in a set; a CellDualityError if too few cells were set aside."""
        if np.isinf(found := conformal_threshold(self.scores, coverage)):
            what = f"{len(self.scores)} cells were set aside for sets of labels, too few for a coverage of {coverage:g}"
            hint = "calibrate again with more --cells, or ask for less"
            raise CellDualityError(what, code="too-few-labels", where="--coverage", hint=hint)
        return found

    def inside(self, opinions: Sequence[Opinion], labels: Sequence[str], coverage: float) -> NDArray[np.bool_]:
        """Return which labels are in the set of each cell, cells x labels."""
        return label_sets(self.sets.probabilities(opinions, labels), self.threshold(coverage))

    @classmethod
    def of_notes(cls, notes: Mapping[str, Any], task: str, asked: str) -> Calibration | None:
        """Return that of a task, as it was ``asked``, in a model's notes (there as ``asdict`` has it), or None."""
        found = notes.get("calibration", {}).get(task, {}).get(asked)
        if not found:
            return None
        confidence, sets = (Exponents(**found[name]) for name in ("confidence", "sets"))
        return cls(confidence, sets, tuple(found["scores"]), found["labels"])


def fit(opinions: Sequence[Opinion], truth: Sequence[str], labels: Sequence[str]) -> Calibration:
    """Return the calibration by cells in random order: of every three one is fitted to for sets, and two set aside.

    A CellDualityError if there are fewer than :data:`FEWEST` cells.
    """
    if len(truth) < FEWEST:
        what, hint = f"{len(truth)} cells with a label, of {FEWEST} at least", "prepare more, or raise --cells"
        raise CellDualityError(what, code="too-few-labels", where="--cells", hint=hint)
    seen, true = _features(opinions, labels), np.array([labels.index(each) for each in truth])
    third = np.arange(len(true)) % 3 == 0
    sets = _exponents(seen[third], true[third])
    shares = softmax(seen[~third] @ np.array([sets.votes, sets.reward]), axis=-1)
    scores = np.sort(1 - shares[np.arange(len(shares)), true[~third]])
    return Calibration(_exponents(seen, true), sets, tuple(scores.tolist()), len(true))


def _features(opinions: Sequence[Opinion], labels: Sequence[str]) -> NDArray[np.float64]:
    """Return log votes and log rewards, cells x labels x 2; 0 for all where nobody judged."""
    votes = np.array([[each.votes.get(label, 0) for label in labels] for each in opinions], np.float64)
    rewards = np.array([[each.rewards.get(label, 1.0) for label in labels] for each in opinions], np.float64)
    found: NDArray[np.float64] = np.log(np.stack([votes + UNNAMED, np.maximum(rewards, LEAST)], axis=-1))
    return found


def _exponents(seen: NDArray[np.float64], true: NDArray[np.int64]) -> Exponents:
    """Return the exponents under which the true labels are likeliest, by L-BFGS; a faint ridge keeps them finite."""
    rows = np.arange(len(true))

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        shares = softmax(seen @ weights, axis=-1)
        slope = (np.einsum("cl,clf->cf", shares, seen) - seen[rows, true]).mean(axis=0)
        surprise = -np.log(np.maximum(shares[rows, true], 1e-300)).mean()
        return float(surprise + _RIDGE / 2 * weights @ weights), slope + _RIDGE * weights

    return Exponents(*minimize(loss, [0.5, 0.1], jac=True, bounds=[(0, None)] * 2, method="L-BFGS-B").x.tolist())
