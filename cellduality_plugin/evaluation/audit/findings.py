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
from cellduality_plugin.evaluation.audit.judging import Judged
from cellduality_plugin.evaluation.audit.statistics import Estimate, mean_over_cells, over_columns
from cellduality_plugin.evaluation.audit.verdicts import verdict
from cellduality_plugin.evaluation.metrics import accuracy, macro_f1
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
    task: str, reward: str, judged: Sequence[Judged], answered: Sequence[Answered], how: Counting
) -> dict[str, Any]:
    """Return the numbers of ``reward`` on ``task``, each a mean over cells with its interval, and the verdict."""
    masks = judged[0].case.splits
    made = {
        "task": task,
        "reward": reward,
        "n": len(judged),
        "masks": len(masks),
        "masks_of_a_rollout": min(how.masks, len(masks)),
        "samples": len(answered[0].samples),
        **_preference(judged, how),
        **(_choice(judged, answered, how) if judged[0].case.names_a_label else {}),
        **_within_groups(judged, answered, how),
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


def _choice(judged: Sequence[Judged], answered: Sequence[Answered], how: Counting) -> dict[str, Any]:
    """Return accuracy and macro-F1 of the label that is paid most, and of the policy's own, on the same cells."""
    rng = np.random.default_rng(how.seed)
    codes: dict[str, int] = {"": 0}
    gold = np.array([codes.setdefault(str(each.case.example.gold), len(codes)) for each in judged])
    own = np.array([codes.setdefault(str(each.greedy or ""), len(codes)) for each in answered])
    each_picked = [_picks(each, how.masks, codes, rng) for each in judged]
    right = np.array([np.mean(np.equal(picks, label)) for picks, label in zip(each_picked, gold, strict=True)])
    blocks = min(map(len, each_picked))  # a cell of few genes has fewer masks
    picked = np.array([picks[:blocks] for picks in each_picked])
    over = partial(over_columns, seed=how.seed, resamples=how.resamples)
    return {
        "choice_accuracy": how.mean(right.tolist()),
        "choice_macro_f1": over(statistics.mean_macro_f1, gold, picked).as_dict(),
        "policy_accuracy": over(accuracy, gold, own).as_dict(),
        "policy_macro_f1": over(macro_f1, gold, own).as_dict(),
        "choice_gain": how.mean((right - (own == gold)).tolist()),
    }


def _picks(judged: Judged, masks: int, codes: dict[str, int], rng: np.random.Generator) -> list[int]:
    """Return the code of the label that is paid most, block by block."""
    labels = [str(c.value) for c in judged.case.candidates if c.kind in ("true", "wrong")]
    best = statistics.choices(statistics.in_blocks(judged.of("true", "wrong"), masks), rng)
    return [codes.setdefault(labels[place], len(codes)) for place in best]


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
