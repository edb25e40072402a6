"""From rewards to the numbers of an audit: one finding a task and reward, and the arithmetic behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from cellduality_plugin.evaluation.audit.answers import Case, Contender, Kind
from cellduality_plugin.evaluation.audit.engine import COSTS
from cellduality_plugin.evaluation.metrics.statistics import bootstrap_interval
from cellduality_plugin.examples import Value

NOTHING = float("nan")

Floats: TypeAlias = NDArray[np.float64]
"""Rewards of one cell are answers x masks, or answers x blocks of masks."""


@dataclass(frozen=True)
class Judged:
    """The rewards of one cell's candidates and samples: answers x masks, in the order of the case and of the group."""

    case: Case
    candidates: Floats
    samples: Floats
    costs: Floats  # by COSTS, of the samples under all masks, asked as training asks
    failed: float  # the share of their duals that gave no verdict

    def of(self, *kinds: Kind) -> Floats:
        """Return the rewards of the candidates of ``kinds``: answers x masks."""
        return self.candidates[[place for place, (kind, _) in enumerate(self.case.candidates) if kind in kinds]]


@dataclass(frozen=True)
class Counting:
    """How numbers and their intervals are made."""

    seed: int
    resamples: int
    masks: int = 1  # of so many the reward of a rollout is the mean
    least_spread: float = 0.0  # of a group that is not flat

    def mean(self, values: Sequence[float] | Floats) -> dict[str, Any]:
        """Return the mean of one value a cell, as :meth:`over`; cells without a value (NaN) do not count."""
        known = np.asarray(values, dtype=float)
        known = known[~np.isnan(known)]
        return self.over(np.mean, known) if len(known) else {"value": None, "n": 0, "interval": None}

    def over(self, statistic: Callable[..., Any], *columns: Floats) -> dict[str, Any]:
        """Return the ``value`` of a statistic of columns, ``n`` cells each, and its 95 % bootstrap ``interval``."""
        interval = bootstrap_interval(statistic, *columns, seed=self.seed, resamples=self.resamples)
        return {"value": float(statistic(*columns)), "n": len(columns[0]), "interval": interval}


def finding(contender: Contender, judged: Sequence[Judged], how: Counting) -> dict[str, Any]:
    """Return the numbers of ``contender`` on the task of ``judged`` cells, each a mean over them with its interval.

    ``score_of_cells``, by which contenders are compared, is ``product_accuracy`` of each cell, or ``best_of_group`` of
    a written one (None without); ``choice_of_cells`` is that of the label which the reward alone chooses.
    """
    case, rollouts = judged[0].case, sum(each.samples.size for each in judged)
    costs = np.sum([each.costs for each in judged], axis=0) / max(1, rollouts)
    return {
        "task": case.task.name,
        "reward": contender.title,
        "contender": asdict(contender),
        "n": len(judged),
        "masks": len(case.splits),
        "masks_of_a_rollout": min(how.masks, len(case.splits)),
        "samples": len(case.samples),
        **_preference(judged, how),
        **_within_groups(judged, how),
        **(_labels(judged, how) if case.names_a_label else {}),
        **_worth(judged, how),
        "signal_to_noise": signal_to_noise([each.of("true", "wrong") for each in judged]),
        "failed": float(np.mean([each.failed for each in judged])),
        "cost": dict(zip(COSTS, costs.tolist(), strict=True)),
    }


def _preference(judged: Sequence[Judged], how: Counting) -> dict[str, Any]:
    """Return the AUC of the true answer against wrong ones: as a rollout is paid, over all masks, and kind by kind."""

    def auc(kind: Kind | Literal["sampled"], masks: int = how.masks) -> dict[str, Any]:
        wrong = [each.samples if kind == "sampled" else each.of(kind) for each in judged]
        pairs = [(in_blocks(e.of("true"), masks).T, in_blocks(w, masks).T) for e, w in zip(judged, wrong, strict=True)]
        return how.mean([float(np.mean([*map(pairwise_auc, *pair)])) for pair in pairs])

    case = judged[0].case
    kinds: tuple[Kind | Literal["sampled"], ...] = ("reordered", "copied", "sampled")
    against = {} if case.names_a_label else {"auc_against": {kind: auc(kind) for kind in kinds}}
    return {"auc": auc("wrong"), "auc_all_masks": auc("wrong", len(case.splits)), **against}


def _labels(judged: Sequence[Judged], how: Counting) -> dict[str, Any]:
    """Return accuracy and macro-F1 of four ways to name a label, each a :func:`product`; its shares count as such.

    ``choice``: the label paid most of all; ``policy``: the likeliest answer; ``majority`` of a group; ``product``: of a
    group and its rewards.
    """
    labels = sorted({str(value) for each in judged for _, value in each.case.candidates})

    def shares(answers: Sequence[Value | None], rewards: Floats | None = None) -> list[float]:
        paid = np.zeros((len(answers), 1)) if rewards is None else in_blocks(rewards, how.masks)
        found = [product(answers, block) for block in paid.T]
        return [sum(choice.get(label, 0.0) / len(found) for choice in found) for label in labels]

    def ways(each: Judged) -> dict[str, list[float]]:
        case = each.case
        named = [value for kind, value in case.candidates if kind in ("true", "wrong")]
        return {
            "choice": shares(named, each.of("true", "wrong")),
            "policy": shares([case.greedy]),
            "majority": shares(case.values),
            "product": shares(case.values, each.samples),
        }

    def gain(gold: Floats, after: Floats, before: Floats) -> float:
        return shared_macro_f1(gold, after) - shared_macro_f1(gold, before)

    of_cells, gold = [ways(each) for each in judged], np.array([shares([each.case.gold]) for each in judged])
    picked = {way: np.array([own[way] for own in of_cells]) for way in of_cells[0]}
    right = {way: (gold * found).sum(axis=1) for way, found in picked.items()}
    return {
        **{f"{way}_accuracy": how.mean(found) for way, found in right.items()},
        **{f"{way}_macro_f1": how.over(shared_macro_f1, gold, found) for way, found in picked.items()},
        "product_gain": how.mean(right["product"] - right["majority"]),
        "product_gain_macro_f1": how.over(gain, gold, picked["product"], picked["majority"]),
        "score_of_cells": right["product"].tolist(),
        "choice_of_cells": right["choice"].tolist(),
    }


def _within_groups(judged: Sequence[Judged], how: Counting) -> dict[str, Any]:
    """Return what the policy's own answers show, which is all that training sees; what has no truth does not count."""
    paid, cases = [in_blocks(each.samples, how.masks) for each in judged], [each.case for each in judged]
    names_a_label = cases[0].names_a_label
    name, *others = cases[0].truths

    def of_cells(measure: Callable[[Floats, Floats], float], key: str = name) -> list[float]:
        truths = [np.array(case.truths[key], dtype=float) for case in cases]
        known = [(rewards[~np.isnan(t)], t[~np.isnan(t)]) for rewards, t in zip(paid, truths, strict=True)]
        return [_mean([measure(block, t) for block in rewards.T if len(t)]) for rewards, t in known]

    def right_against_wrong(rewards: Floats, truth: Floats) -> float:
        return pairwise_auc(rewards[truth == 1], rewards[truth == 0])

    truest, mean = of_cells(best_of_group), [_mean(case.truths[name]) for case in cases]
    return {
        "truth": name,
        "group_measure": "AUC" if names_a_label else "Spearman",
        "group_agreement": how.mean(of_cells(right_against_wrong if names_a_label else rank_correlation)),
        **{f"group_agreement_{key}": how.mean(of_cells(rank_correlation, key)) for key in others},
        "best_of_group": how.mean(truest),
        "mean_of_group": how.mean(mean),
        "group_gain": how.mean(np.subtract(truest, mean)),
        "zero_variance": how.mean([zero_variance(rewards, how.least_spread) for rewards in paid]),
        "same_answers": how.mean([float(len(set(case.values)) == 1) for case in cases]),
        "score_of_cells": [None if np.isnan(each) else each for each in truest],
    }


def _mean(values: Sequence[float] | Floats) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else NOTHING


def _worth(judged: Sequence[Judged], how: Counting) -> dict[str, Any]:
    """Return what the true answer is paid; ``shuffled``, that of a random other cell; and ``observed_only``.

    The last adds nothing to what the question shows: a copy of the list it shows, or else wrong answers on average.
    """
    kinds: tuple[Kind, ...] = ("true", "another's", "copied", "wrong")
    true, shuffled, copied, wrong = (np.array([_mean(each.of(kind).ravel()) for each in judged]) for kind in kinds)
    bare = np.where(np.isnan(copied), wrong, copied)
    columns = {
        "true_reward": true, "shuffled_reward": shuffled, "observed_only_reward": bare,
        "gain_over_shuffled": true - shuffled, "gain_over_observed_only": true - bare,
    }  # fmt: skip
    return {name: how.mean(column) for name, column in columns.items()}


def in_blocks(rewards: Floats, masks: int) -> Floats:
    """Return the mean rewards over every ``masks`` masks: answers x blocks. Masks that fill no block are left out."""
    size = min(masks, rewards.shape[1])
    blocks = rewards.shape[1] // size
    return np.asarray(rewards[:, : blocks * size].reshape(len(rewards), blocks, size).mean(axis=2))


def pairwise_auc(true: Floats, wrong: Floats) -> float:
    """Return the share of (true, wrong) pairs in which the true answer is paid more, ties half; NaN without any."""
    gaps = true[:, None] - wrong[None, :]
    return float(np.mean((gaps > 0) + 0.5 * (gaps == 0))) if gaps.size else NOTHING


def product(answers: Sequence[Value | None], rewards: Floats) -> dict[Value, float]:
    """Return {answer: its share} of those of a group whose votes times reward are most: training leads there.

    Where products are equal votes decide, and else the answers share evenly. Unreadable ones (None) have no vote.
    """
    paid: dict[Value, list[float]] = {}
    for answer, reward in zip(answers, rewards.tolist(), strict=True):
        if answer is not None:
            paid.setdefault(answer, []).append(reward)
    worth = {answer: (round(sum(own), 12), len(own)) for answer, own in paid.items()}
    most = max(worth.values(), default=None)
    found = [answer for answer, own in worth.items() if own == most]
    return {answer: 1 / len(found) for answer in found}


def shared_macro_f1(gold: Floats, picked: Floats) -> float:
    """Return the macro-F1 over the labels present in ``gold``, in [0, 1], of choices that several labels may share.

    Both are cells x labels: 1 for the true label; each label's share of the choice, 0 for all where none was made.
    """
    there, hits = gold.sum(axis=0), (gold * picked).sum(axis=0)
    present = there > 0
    return float(np.mean(2 * hits[present] / (there + picked.sum(axis=0))[present]))


def rank_correlation(rewards: Floats, truth: Floats) -> float:
    """Return Spearman's correlation of answers with a truth, in [-1, 1]; NaN if either does not vary."""
    if np.ptp(rewards) == 0 or np.ptp(truth) == 0:
        return NOTHING
    return float(np.clip(spearmanr(rewards, truth).statistic, -1.0, 1.0).round(12))


def zero_variance(rewards: Floats, least: float = 0.0) -> float:
    """Return the share of blocks whose answers are all paid the same, or within less than ``least``. Best value 0."""
    spread = np.ptp(rewards, axis=0)
    return float(np.mean((spread == 0) | (spread < least)))


def signal_to_noise(rewards: Sequence[Floats]) -> float | None:
    """Return the variance over answers by the mean variance over masks; None of one mask alone, or without noise."""
    several = [cell for cell in rewards if cell.shape[1] > 1 and len(cell) > 1]
    noise = float(np.mean([np.var(cell, axis=1, ddof=1).mean() for cell in several])) if several else 0.0
    if not noise:
        return None
    return round(float(np.mean([np.var(cell.mean(axis=1), ddof=1) for cell in several])) / noise, 9)


def best_of_group(rewards: Floats, truth: Floats) -> float:
    """Return how true the best paid answer of a group is, the mean over those paid the same."""
    return float(truth[rewards == rewards.max()].mean())
