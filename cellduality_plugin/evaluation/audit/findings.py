"""From rewards to the numbers of an audit: one finding a task and reward."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cellduality_plugin.evaluation.audit import statistics
from cellduality_plugin.evaluation.audit.contenders import Contender
from cellduality_plugin.evaluation.audit.judging import COSTS, Judged
from cellduality_plugin.evaluation.audit.statistics import (
    NOTHING,
    Bootstrap,
    Floats,
    in_blocks,
    pairwise_auc,
    shared_macro_f1,
)
from cellduality_plugin.evaluation.audit.verdicts import verdict
from cellduality_plugin.examples import Value


@dataclass(frozen=True)
class Answered:
    """What the policy itself answers about a cell."""

    greedy: Value | None  # its likeliest answer; None if it was not asked for or could not be read
    samples: tuple[str, ...]  # drawn responses, whole
    values: tuple[Value | None, ...]  # and what was read in them
    truths: Mapping[str, Sequence[float]]  # how true each of them is, by measure, the headline first


@dataclass(frozen=True)
class Counting(Bootstrap):
    """How numbers are made: of how many masks the reward of a rollout is the mean, and the least spread."""

    masks: int
    least_spread: float


def finding(
    task: str, contender: Contender, judged: Sequence[Judged], answered: Sequence[Answered], how: Counting
) -> dict[str, Any]:
    """Return the numbers of ``contender`` on ``task``, each a mean over cells with its interval, and the verdict.

    ``score_of_cells`` is what contenders are compared by, cell by cell: of labels how right the group's votes times
    reward are (``product_accuracy``), of written cells how true the best paid one is (``best_of_group``); None for a
    cell without.
    """
    case, rollouts = judged[0].case, sum(each.samples.size for each in judged)
    costs = np.sum([each.costs for each in judged], axis=0) / max(1, rollouts)
    made = {
        "task": task,
        "reward": contender.title,
        "contender": asdict(contender),
        "n": len(judged),
        "masks": len(case.splits),
        "masks_of_a_rollout": min(how.masks, len(case.splits)),
        "samples": len(answered[0].samples),
        **_preference(judged, how),
        **_within_groups(judged, answered, how),
        **(_labels(judged, answered, how) if case.names_a_label else {}),
        **_worth(judged, how),
        "signal_to_noise": statistics.signal_to_noise([each.of("true", "wrong") for each in judged]),
        "failed": float(np.mean([each.failed for each in judged])),
        "cost": dict(zip(COSTS, costs.tolist(), strict=True)),
    }
    return {**made, "verdict": verdict(made)}


def _preference(judged: Sequence[Judged], how: Counting) -> dict[str, Any]:
    """Return the AUC of the true answer against wrong ones: as a rollout is paid, over all masks, and kind by kind."""

    def of_cell(true: Floats, wrong: Floats, masks: int) -> float:
        if not len(wrong):
            return NOTHING
        blocks = zip(in_blocks(true, masks).T, in_blocks(wrong, masks).T, strict=True)
        return float(np.mean([pairwise_auc(*pair) for pair in blocks]))

    def auc(wrong: Callable[[Judged], Floats], masks: int = how.masks) -> dict[str, Any]:
        return how.mean([of_cell(each.of("true"), wrong(each), masks) for each in judged])

    every = len(judged[0].case.splits)
    found = {"auc": auc(lambda each: each.of("wrong")), "auc_all_masks": auc(lambda each: each.of("wrong"), every)}
    if not judged[0].case.names_a_label:
        found["auc_against"] = {
            "reordered": auc(lambda each: each.of("reordered")),
            "copied": auc(lambda each: each.of("copied")),
            "sampled": auc(lambda each: each.samples),
        }
    return found


def _labels(judged: Sequence[Judged], answered: Sequence[Answered], how: Counting) -> dict[str, Any]:
    """Return accuracy and macro-F1 of four ways to name a label, on the same cells; shares of a choice count as such.

    ``choice``: the label that is paid most of all; ``policy``: its likeliest answer; ``majority``: the commonest answer
    of a group; ``product``: the one whose votes times reward are most, to which training leads.
    """
    labels = sorted({str(value) for each in judged for _, value in each.case.candidates})

    def shares(choices: Sequence[Mapping[Value, float]]) -> list[float]:
        return [sum(float(choice.get(label, 0.0)) / len(choices) for choice in choices) for label in labels]

    def best_paid(each: Judged) -> list[dict[Value, float]]:
        named = [value for kind, value in each.case.candidates if kind in ("true", "wrong")]
        blocks = in_blocks(each.of("true", "wrong"), how.masks).T
        return [statistics.best(dict(zip(named, rewards, strict=True))) for rewards in blocks]

    def products(each: Judged, own: Answered) -> list[dict[Value, float]]:
        return [statistics.product(own.values, block) for block in in_blocks(each.samples, how.masks).T]

    gold = np.array([shares([{each.case.gold: 1.0}]) for each in judged])
    picked = {
        "choice": np.array([shares(best_paid(each)) for each in judged]),
        "policy": np.array([shares([{} if own.greedy is None else {own.greedy: 1.0}]) for own in answered]),
        "majority": np.array([shares([statistics.majority(own.values)]) for own in answered]),
        "product": np.array([shares(products(*pair)) for pair in zip(judged, answered, strict=True)]),
    }
    right = {way: (gold * found).sum(axis=1) for way, found in picked.items()}

    def gain(gold: Floats, after: Floats, before: Floats) -> float:
        return shared_macro_f1(gold, after) - shared_macro_f1(gold, before)

    return {
        **{f"{way}_accuracy": how.mean(found) for way, found in right.items()},
        **{f"{way}_macro_f1": how.over(shared_macro_f1, gold, found) for way, found in picked.items()},
        "product_gain": how.mean(right["product"] - right["majority"]),
        "product_gain_macro_f1": how.over(gain, gold, picked["product"], picked["majority"]),
        "score_of_cells": right["product"].tolist(),
    }


def _within_groups(judged: Sequence[Judged], answered: Sequence[Answered], how: Counting) -> dict[str, Any]:
    """Return what the policy's own answers show, which is all that training sees."""
    paid = [in_blocks(each.samples, how.masks) for each in judged]
    name, *others = answered[0].truths
    true = {key: [np.array(each.truths[key], dtype=float) for each in answered] for key in (name, *others)}
    labels = judged[0].case.names_a_label

    def over_blocks(measure: Callable[[Floats, Floats], float], key: str = name) -> list[float]:
        return [_mean([measure(block, t) for block in rewards.T]) for rewards, t in zip(paid, true[key], strict=True)]

    def right_against_wrong(rewards: Floats, truth: Floats) -> float:
        return pairwise_auc(rewards[truth == 1], rewards[truth == 0])

    best, mean = over_blocks(statistics.best_of_group), [_mean(t) for t in true[name]]
    return {
        "truth": name,
        "group_measure": "AUC" if labels else "Spearman",
        "group_agreement": how.mean(over_blocks(right_against_wrong if labels else statistics.rank_correlation)),
        **{f"group_agreement_{key}": how.mean(over_blocks(statistics.rank_correlation, key)) for key in others},
        "best_of_group": how.mean(best),
        "mean_of_group": how.mean(mean),
        "group_gain": how.mean(np.subtract(best, mean)),
        "zero_variance": how.mean([statistics.zero_variance(rewards, how.least_spread) for rewards in paid]),
        "same_answers": how.mean([float(len(set(each.values)) == 1) for each in answered]),
        "score_of_cells": [None if np.isnan(each) else each for each in best],
    }


def _mean(values: Sequence[float] | Floats) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else NOTHING


def _worth(judged: Sequence[Judged], how: Counting) -> dict[str, Any]:
    """Return what the true answer is paid, and what answers without its information are.

    ``shuffled``: the true answer of a random other cell. ``observed_only``: an answer that adds nothing to what the
    question shows, which is a copy of the list it shows, or else wrong answers on average.
    """

    def paid(kind: Any) -> Floats:
        return np.array([float(each.of(kind).mean()) if len(each.of(kind)) else NOTHING for each in judged])

    true, shuffled, copied = paid("true"), paid("another's"), paid("copied")
    bare = np.where(np.isnan(copied), paid("wrong"), copied)
    columns = {
        "true_reward": true, "shuffled_reward": shuffled, "observed_only_reward": bare,
        "gain_over_shuffled": true - shuffled, "gain_over_observed_only": true - bare,
    }  # fmt: skip
    return {name: how.mean(column) for name, column in columns.items()}
