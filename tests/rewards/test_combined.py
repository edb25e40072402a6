"""Rewards made of others, of several draws, of several answers: what they are and what they ask."""

from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.rewards import REWARDS, LabelProduct, LabelScores, Product, Verdict, WeightedSum, get_reward
from tests.play import Constant, Saying, roll

TYPE, CELL = "cell_type_annotation", "conditional_cell_generation"
powers = st.floats(0.01, 4)


class Scores(LabelScores):
    """Gives the scores it was made of."""

    def __init__(self, scores):
        self.scores = scores

    async def log_scores(self, answer, dual):
        return self.scores, "T"


def verdict_of(reward):
    return asyncio.run(reward.judge("T", None))


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(1e-3, 1e3)), min_size=1))
def test_a_sum_is_the_weighted_mean_of_its_parts(parts):
    found = verdict_of(WeightedSum([(Constant(Verdict(value)), weight) for value, weight in parts])).similarity
    values, weights = np.array(parts).T
    assert math.isclose(found, np.average(values, weights=weights), abs_tol=1e-9)
    assert 0.0 <= found <= 1.0


def test_a_sum_asks_what_two_parts_ask_once(case_of):
    case = case_of(TYPE, dict.fromkeys(["posterior", "likelihood", "duality", "duality-rbo"], 0.25))
    case.answer(*case.labels, by=(policy := case.knowing()))
    assert len(policy.prompts) == 2 * len(case.labels)


@given(st.lists(st.tuples(st.floats(-60, 0), st.floats(-60, 0)), min_size=1, max_size=6), powers, powers)
def test_a_product_of_label_probabilities_is_normalised_once(scores, one, other):
    names = ["T", *(f"other {place}" for place in range(1, len(scores)))]
    parts = [Scores(dict(zip(names, each, strict=True))) for each in zip(*scores, strict=True)]
    found = verdict_of(LabelProduct([(parts[0], one), (parts[1], other)])).similarity
    probabilities = [np.exp(np.subtract(list(part.scores.values()), max(part.scores.values()))) for part in parts]
    odds = probabilities[0] ** one * probabilities[1] ** other
    assert math.isclose(found, odds[0] / odds.sum(), rel_tol=1e-6, abs_tol=1e-9)
    for alone in (LabelProduct([(parts[0], 1.0)]), Product([(parts[0], 1.0)])):
        assert verdict_of(alone) == verdict_of(parts[0])


@given(st.lists(st.tuples(st.floats(0, 1), powers), min_size=1, max_size=4))
def test_a_product_of_anything_else_multiplies_powers(parts):
    found = verdict_of(Product([(Constant(Verdict(value)), power) for value, power in parts])).similarity
    assert math.isclose(found, math.prod(value**power for value, power in parts), abs_tol=1e-12)


def test_a_product_fails_with_a_factor_and_is_of_labels_where_every_factor_is():
    verdict = verdict_of(Product([(Scores({"T": 0.0}), 1.0), (Constant(Verdict.none("unclosed")), 0.5)]))
    assert (verdict.similarity, verdict.failure, verdict.failed) == (0.0, "unclosed", 1.0)
    kinds = {text: type(get_reward(text)) for text in ("posterior^0.5", "posterior*profile", "posterior*duality")}
    assert [*kinds.values()] == [LabelProduct, LabelProduct, Product]
    assert get_reward("posterior^1") is REWARDS["posterior"]


@pytest.mark.parametrize(
    ("draws", "share", "reward", "failed"),
    [("rrwr", 0.0, 0.75, 0.0), ("r?", 0.0, 0.5, 0.5), ("?r", 0.5, 0.75, 0.5), ("???", 0.5, 0.0, 1.0)],
)
def test_the_mean_of_draws_counts_and_form_earns_its_share_if_one_can_be_read(draws, share, reward, failed, case_of):
    """Of draws that are right, wrong or unreadable; each is a request."""
    dual = {"samples": len(draws), "temperature": 1.0}
    case = case_of(CELL, "duality", dual=dual, validity_share=share)
    policy, said = case.knowing(), {"r": case.example.unknown, "w": "T"}
    texts = iter([case.task.rebuilt_response(said[draw]) if draw in said else "?" for draw in draws])
    policy.text = lambda *_: next(texts)
    [score] = case.answer(case.gold, by=policy)
    assert (score.reward, score.logs["dual_failed"], score.logs["dual_requests"]) == (reward, failed, len(draws))


@pytest.mark.parametrize(
    ("reward", "timeout", "pause"), [("posterior", 0.1, 0.05), ("posterior", 0.05, 0.0), ("mine.py:Hanging", 0.05, 0.0)]
)
def test_an_answer_that_gives_up_takes_no_other_with_it_and_leaves_nothing_running(reward, timeout, pause, case_of):
    """Two answers of a group share their prefills; the second comes ``pause`` seconds after the first."""
    case = case_of(TYPE, reward, dual={"timeout_seconds": timeout})
    policy = case.knowing(delay=60.0)

    async def late(group, label, seconds):
        await asyncio.sleep(seconds)
        return await case.scorer.score(case.task.answer_response(label), group, policy)

    async def two():
        group = case.scorer.group(case.example.to_label())
        scores = await asyncio.gather(late(group, "T", 0.0), late(group, "CD19+ B", pause))
        await asyncio.sleep(0.1)
        return scores, len(asyncio.all_tasks()) - 1

    scores, still_running = asyncio.run(two())
    assert [(score.reward, score.logs["dual_timeout"]) for score in scores] == [(0.0, 1.0)] * 2
    assert still_running == 0
    assert len(policy.prompts) == (len(case.labels) if reward == "posterior" else 0)


@pytest.mark.parametrize(("bound", "rewards"), [(0.0, [0.5, 1.0]), (0.5, [0.5, 1.0]), (0.75, [0.75, 0.75])])
def test_a_group_of_rewards_that_are_too_near_earns_their_mean(bound, rewards, case_of, cell):
    """A cell with repeats, and one without."""
    case = case_of(CELL, "duality", minimum_spread=bound)
    texts = [case.task.answer_response(genes) for genes in (cell.genes[:4] * 2, cell.genes)]
    scores = roll(case.scorer, case.example, texts, Saying(case.task.rebuilt_response(case.example.unknown)))
    assert [score.reward for score in scores] == rewards
    for score in scores:
        assert score.logs["dual_reward"] == score.logs[f"dual_reward/{CELL}"] == score.reward
        assert score.logs["dual_levelled"] == float(bound > 0.5)
