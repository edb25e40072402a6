"""From rewards to the numbers of an audit: one finding a task and reward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.evaluation.audit import statistics
from cellduality_plugin.evaluation.audit.asking import Cost
from cellduality_plugin.evaluation.audit.contenders import Contender
from cellduality_plugin.evaluation.audit.judging import Judged
from cellduality_plugin.evaluation.audit.statistics import Estimate, mean_over_cells, over_columns, shared_macro_f1
from cellduality_plugin.evaluation.audit.verdicts import verdict
from cellduality_plugin.examples import Value


@dataclass(frozen=True)
class Answered:
    """What the policy itself answers about a cell.

    Parameters
    ----------
    greedy
        Its likeliest answer; None if it was not asked for or could not be read.
    samples
        Its sampled responses, whole.
    values
        What was read in them.
    truths
        How true each of them is, by measure; the first measure is the headline.
    """

    greedy: Value | None
    samples: tuple[str, ...]
    values: tuple[Value | None, ...]
    truths: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Counting:
    """How numbers are made: of how many masks the reward of a rollout is the mean, the least spread, the bootstrap."""

    masks: int
    least_spread: float
    seed: int
    resamples: int

    def mean(self, values: Sequence[float]) -> dict[str, Any]:
        """Return the mean of one value a cell."""
        return mean_over_cells(values, seed=self.seed, resamples=self.resamples).as_dict()


def finding(
    task: str, contender: Contender, judged: Sequence[Judged], answered: Sequence[Answered], how: Counting
) -> dict[str, Any]:
    """Return the numbers of ``contender`` on ``task``, each a mean over cells with its interval, and the verdict.

    ``score_of_cells`` is what contenders are compared by, cell by cell: of labels how right the group's votes times
    reward are (``product_accuracy``), of written cells how true the best paid one is (``best_of_group``); None for a
    cell without.
    """
    masks = judged[0].case.splits
    made = {
        "task": task,
        "reward": contender.title,
        "contender": asdict(contender),
        "n": len(judged),
        "masks": len(masks),
        "masks_of_a_rollout": min(how.masks, len(masks)),
        "samples": len(answered[0].samples),
        **_preference(judged, how),
        **_within_groups(judged, answered, how),
        **(_labels(judged, answered, how) if judged[0].case.names_a_label else {}),
        **_worth(judged, how),
        "signal_to_noise": statistics.signal_to_noise([each.of("true", "wrong") for each in judged]),
        "failed": float(np.mean([each.failed for each in judged])),
        "cost": asdict(_cost(judged)),
    }
    return {**made, "verdict": asdict(verdict(made))}


def _preference(judged: Sequence[Judged], how: Counting) -> dict[str, Any]:
    """Return the AUC of the true answer against wrong ones: as a rollout is paid, over all masks, and kind by kind."""

    def auc(kind: Any, masks: int) -> dict[str, Any]:
        return how.mean([_auc(each, each.of(kind), masks) for each in judged])

    found = {"auc": auc("wrong", how.masks), "auc_all_masks": auc("wrong", len(judged[0].case.splits))}
    if judged[0].case.names_a_label:
        return found
    by_kind = {kind: auc(kind, how.masks) for kind in ("reordered", "copied")}
    by_kind["sampled"] = how.mean([_auc(each, each.samples, how.masks) for each in judged])
    return {**found, "auc_against": by_kind}


def _auc(judged: Judged, wrong: statistics.Rewards, masks: int) -> float:
    if not len(wrong):
        return float("nan")
    true, others = (statistics.in_blocks(rewards, masks) for rewards in (judged.of("true"), wrong))
    return float(np.mean([statistics.pairwise_auc(*pair) for pair in zip(true.T, others.T, strict=True)]))


def _labels(judged: Sequence[Judged], answered: Sequence[Answered], how: Counting) -> dict[str, Any]:
    """Return accuracy and macro-F1 of four ways to name a label, on the same cells; shares of a choice count as such.

    ``choice``: the label that is paid most of all; ``policy``: its likeliest answer; ``majority``: the commonest answer
    of a group; ``product``: the one whose votes times reward are most, to which training leads.
    """
    labels = sorted({str(c.value) for each in judged for c in each.case.candidates})
    place = {label: number for number, label in enumerate(labels)}

    def shares(found: Sequence[Mapping[Value, float]]) -> NDArray[np.float64]:
        row = np.zeros(len(place))
        for choice in found:
            for label, share in choice.items():
                row[place[str(label)]] += share / len(found)
        return row

    pairs = list(zip(judged, answered, strict=True))
    gold = np.array([shares([{_gold(each): 1.0}]) for each in judged])
    ways = {
        "choice": [shares(_best_paid(each, how.masks)) for each in judged],
        "policy": [shares([{own.greedy: 1.0}] if own.greedy in place else []) for own in answered],
        "majority": [shares([statistics.majority(own.values)]) for own in answered],
        "product": [
            shares([statistics.product(own.values, block) for block in statistics.in_blocks(each.samples, how.masks).T])
            for each, own in pairs
        ],
    }
    picked = {way: np.array(found) for way, found in ways.items()}
    right = {way: (gold * found).sum(axis=1) for way, found in picked.items()}
    over = partial(over_columns, seed=how.seed, resamples=how.resamples)
    return {
        **{f"{way}_accuracy": how.mean(found.tolist()) for way, found in right.items()},
        **{f"{way}_macro_f1": over(shared_macro_f1, gold, found).as_dict() for way, found in picked.items()},
        "product_gain": how.mean((right["product"] - right["majority"]).tolist()),
        "product_gain_macro_f1": over(_gain_macro_f1, gold, picked["product"], picked["majority"]).as_dict(),
        "score_of_cells": right["product"].tolist(),
    }


def _gold(judged: Judged) -> Value:
    gold = judged.case.example.gold
    assert gold is not None  # make_cases() refuses such a row
    return gold


def _best_paid(judged: Judged, masks: int) -> list[dict[Value, float]]:
    """Return the labels that are paid most, block by block."""
    labels = [c.value for c in judged.case.candidates if c.kind in ("true", "wrong")]
    blocks = statistics.in_blocks(judged.of("true", "wrong"), masks).T
    return [statistics.best(dict(zip(labels, rewards, strict=True))) for rewards in blocks]


def _gain_macro_f1(gold: NDArray[np.float64], after: NDArray[np.float64], before: NDArray[np.float64]) -> float:
    return shared_macro_f1(gold, after) - shared_macro_f1(gold, before)


def _within_groups(judged: Sequence[Judged], answered: Sequence[Answered], how: Counting) -> dict[str, Any]:
    """Return what the policy's own answers show, which is all that training sees."""
    paid = [statistics.in_blocks(each.samples, how.masks) for each in judged]
    name, *others = answered[0].truths
    true = {key: [np.array(each.truths[key], dtype=float) for each in answered] for key in (name, *others)}
    labels = judged[0].case.names_a_label

    def over_blocks(measure: Any, key: str = name) -> list[float]:
        return [_mean([measure(block, t) for block in rewards.T]) for rewards, t in zip(paid, true[key], strict=True)]

    best, mean = over_blocks(statistics.best_of_group), [_mean(t.tolist()) for t in true[name]]
    return {
        "truth": name,
        "group_measure": "AUC" if labels else "Spearman",
        "group_agreement": how.mean(over_blocks(_right_against_wrong if labels else statistics.rank_correlation)),
        **{f"group_agreement_{key}": how.mean(over_blocks(statistics.rank_correlation, key)) for key in others},
        "best_of_group": how.mean(best),
        "mean_of_group": how.mean(mean),
        "group_gain": how.mean([b - m for b, m in zip(best, mean, strict=True)]),
        "zero_variance": how.mean([statistics.zero_variance(rewards, how.least_spread) for rewards in paid]),
        "same_answers": how.mean([float(len(set(each.values)) == 1) for each in answered]),
        "score_of_cells": [None if np.isnan(each) else each for each in best],
    }


def _right_against_wrong(rewards: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    return statistics.pairwise_auc(rewards[truth == 1], rewards[truth == 0])


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _worth(judged: Sequence[Judged], how: Counting) -> dict[str, Any]:
    """Return what the true answer is paid, and what answers without its information are.

    ``shuffled``: the true answer of a random other cell. ``observed_only``: an answer that adds nothing to what the
    question shows, which is a copy of the list it shows, or else wrong answers on average.
    """

    def paid(each: Judged, *kinds: Any) -> float:
        rewards = each.of(*kinds)
        return float(rewards.mean()) if len(rewards) else float("nan")

    true, shuffled = ([paid(each, kind) for each in judged] for kind in ("true", "another's"))
    copied = [paid(each, "copied") for each in judged]
    bare = [paid(each, "wrong") if np.isnan(copy) else copy for each, copy in zip(judged, copied, strict=True)]
    return {
        "true_reward": how.mean(true),
        "shuffled_reward": how.mean(shuffled),
        "observed_only_reward": how.mean(bare),
        "gain_over_shuffled": how.mean([t - s for t, s in zip(true, shuffled, strict=True)]),
        "gain_over_observed_only": how.mean([t - b for t, b in zip(true, bare, strict=True)]),
    }


def _cost(judged: Sequence[Judged]) -> Cost:
    """Return what one rollout costs under one mask."""
    total, rollouts = Cost(), 0
    for each in judged:
        total.add(each.cost)
        rollouts += each.samples.size
    return total.share(max(1, rollouts))


__all__ = ["Answered", "Counting", "Estimate", "finding"]
