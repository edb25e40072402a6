"""What rewards of answers of known worth show: small pure functions, each with its range and best value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from cellduality_plugin.evaluation.metrics.statistics import bootstrap_interval
from cellduality_plugin.examples import Value

Floats: TypeAlias = NDArray[np.float64]
"""Rewards of one cell are answers x masks, or answers x blocks of masks."""

NOTHING = float("nan")


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made."""

    seed: int
    resamples: int

    def mean(self, values: Sequence[float] | Floats) -> dict[str, Any]:
        """Return the mean of one value a cell, as :meth:`over`; cells without a value (NaN) do not count."""
        known = np.asarray(values, dtype=float)
        known = known[~np.isnan(known)]
        return self.over(np.mean, known) if len(known) else {"value": None, "n": 0, "interval": None}

    def over(self, statistic: Callable[..., Any], *columns: Floats) -> dict[str, Any]:
        """Return the ``value`` of a statistic of columns, ``n`` cells each, and its 95 % bootstrap ``interval``."""
        interval = bootstrap_interval(statistic, *columns, seed=self.seed, resamples=self.resamples)
        return {"value": float(statistic(*columns)), "n": len(columns[0]), "interval": interval}


def in_blocks(rewards: Floats, masks: int) -> Floats:
    """Return the mean rewards over every ``masks`` masks: answers x blocks. Masks that fill no block are left out.

    One block is what a rollout of training is paid, where rows hold ``masks`` masks.
    """
    size = min(masks, rewards.shape[1])
    blocks = rewards.shape[1] // size
    return np.asarray(rewards[:, : blocks * size].reshape(len(rewards), blocks, size).mean(axis=2))


def pairwise_auc(true: Floats, wrong: Floats) -> float:
    """Return the share of (true, wrong) pairs in which the true answer is paid more, ties half, in [0, 1].

    Best value 1; chance gives 0.5. NaN if either is empty.
    """
    if not len(true) or not len(wrong):
        return NOTHING
    gaps = true[:, None] - wrong[None, :]
    return float(np.mean((gaps > 0) + 0.5 * (gaps == 0)))


def best(scores: Mapping[Value, Any]) -> dict[Value, float]:
    """Return {answer: its share of a choice} of those that score highest, which share it evenly; empty without any.

    Examples
    --------
    >>> best({"B": 0.5, "T": 0.5, "NK": 0.1})
    {'B': 0.5, 'T': 0.5}
    """
    most = max(scores.values(), default=None)
    found = [answer for answer, score in scores.items() if score == most]
    return {answer: 1 / len(found) for answer in found}


def majority(answers: Sequence[Value | None]) -> dict[Value, float]:
    """Return the commonest answer of a group as :func:`best` does; answers that could not be read do not vote."""
    return best(Counter(answer for answer in answers if answer is not None))


def product(answers: Sequence[Value | None], rewards: Floats) -> dict[Value, float]:
    """Return the answer of a group whose votes times reward are most, as :func:`best` does.

    What a policy that answers so is led to by training on the reward. Where products are equal, 0 among them, votes
    decide.

    Examples
    --------
    >>> product(["B", "B", "T"], np.array([0.25, 0.25, 0.75])), product(["B", "B", "T"], np.zeros(3))
    ({'T': 1.0}, {'B': 1.0})
    """
    votes = Counter(answer for answer in answers if answer is not None)
    paid = dict.fromkeys(votes, 0.0)
    for answer, reward in zip(answers, rewards, strict=True):
        if answer is not None:
            paid[answer] += float(reward)
    return best({answer: (round(paid[answer], 12), votes[answer]) for answer in votes})


def shared_macro_f1(gold: Floats, picked: Floats) -> float:
    """Return the macro-F1 over the labels present in ``gold``, in [0, 1], of choices that several labels may share.

    Best value 1. Where every choice is one label's it is that of :mod:`cellduality_plugin.evaluation.metrics.labels`.
    Both are cells x labels: 1 for the true label; each label's share of the choice, 0 for all where none was made.
    """
    there, hits = gold.sum(axis=0), (gold * picked).sum(axis=0)
    present = there > 0
    return float(np.mean(2 * hits[present] / (there + picked.sum(axis=0))[present]))


def rank_correlation(rewards: Floats, truth: Floats) -> float:
    """Return Spearman's correlation of answers with a truth (not NaN), in [-1, 1]; NaN if either does not vary."""
    known = ~np.isnan(truth)
    rewards, truth = rewards[known], truth[known]
    if len(rewards) < 2 or np.ptp(rewards) == 0 or np.ptp(truth) == 0:
        return NOTHING
    return float(np.clip(spearmanr(rewards, truth).statistic, -1.0, 1.0).round(12))


def zero_variance(rewards: Floats, least: float = 0.0) -> float:
    """Return the share of blocks whose answers are all paid the same, or within less than ``least``. Best value 0."""
    spread = np.ptp(rewards, axis=0)
    return float(np.mean((spread == 0) | (spread < least)))


def signal_to_noise(rewards: Sequence[Floats]) -> float | None:
    """Return how much answers differ over how much masks do: variance over answers of the mean reward over masks, over
    the mean variance over masks. The higher the better; None where there is one mask alone, or no noise.
    """
    several = [cell for cell in rewards if cell.shape[1] > 1 and len(cell) > 1]
    noise = float(np.mean([np.var(cell, axis=1, ddof=1).mean() for cell in several])) if several else 0.0
    if not noise:
        return None
    return round(float(np.mean([np.var(cell.mean(axis=1), ddof=1) for cell in several])) / noise, 9)


def best_of_group(rewards: Floats, truth: Floats) -> float:
    """Return how true the best paid answer of a group is, the mean over those paid the same. NaN without any truth."""
    known = ~np.isnan(truth)
    if not known.any():
        return NOTHING
    rewards, truth = rewards[known], truth[known]
    return float(truth[rewards == rewards.max()].mean())
