"""The arithmetic of an audit against scikit-learn and scipy."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import f1_score, roc_auc_score

from cellduality_plugin.evaluation.audit import findings

# Multiples of a power of two, as rewards are: ties are common and sums exact.
levels = st.integers(0, 16).map(lambda number: number / 16)
shapes = st.tuples(st.integers(2, 8), st.integers(1, 5))
matrices = shapes.flatmap(lambda shape: arrays(float, shape, elements=levels))
pairs = st.lists(st.tuples(levels, levels), min_size=2, max_size=12)


@given(st.lists(levels, min_size=1, max_size=6), st.lists(levels, min_size=1, max_size=12))
def test_pairwise_auc_is_the_area_under_the_roc_curve(true, wrong):
    theirs = roc_auc_score([1] * len(true) + [0] * len(wrong), true + wrong)
    assert findings.pairwise_auc(np.array(true), np.array(wrong)) == pytest.approx(theirs)
    assert np.isnan(findings.pairwise_auc(np.array(true), np.array([])))


@given(st.lists(st.tuples(st.sampled_from(["B", "T", "NK", None]), levels), min_size=1, max_size=8))
def test_the_product_is_worth_most_of_what_the_group_answered_and_the_majority_where_all_are_paid_the_same(group):
    answers, rewards = zip(*group, strict=True)
    votes = Counter(answer for answer in answers if answer is not None)
    assert findings.product(answers).keys() == {each for each in votes if votes[each] == max(votes.values())}
    for reward in (0.0, 0.25):
        assert findings.product(answers, np.full(len(answers), reward)) == findings.product(answers)
    worth = Counter()
    for answer, reward in group:
        worth[answer] += reward
    picked = findings.product(answers, np.array(rewards))
    assert picked.keys() <= set(answers) - {None}
    assert bool(picked) == bool(votes)
    assert sum(picked.values()) == pytest.approx(float(bool(votes)))
    assert len(set(picked.values())) <= 1
    assert all(worth[label] == max(worth[answer] for answer in answers if answer is not None) for label in picked)


@given(matrices, st.integers(1, 8))
def test_paid_twice_as_much_is_as_flat_and_as_noisy_and_blocks_are_means(rewards, masks):
    blocks, noise = findings.in_blocks(rewards, masks), findings.signal_to_noise([rewards])
    assert blocks.shape == (len(rewards), max(1, rewards.shape[1] // masks))
    assert rewards.min() - 1e-12 <= blocks.min() <= blocks.max() <= rewards.max() + 1e-12
    assert findings.in_blocks(2 * rewards, masks) == pytest.approx(2 * blocks)
    flat = np.mean([len(set(block)) == 1 for block in rewards.T])
    assert (findings.zero_variance(2 * rewards), findings.zero_variance(rewards, 2.0)) == (flat, 1.0)
    assert findings.signal_to_noise([2 * rewards]) == (None if noise is None else pytest.approx(noise))
    assert findings.signal_to_noise([rewards[:, :1]]) is None


@given(pairs)
def test_the_best_of_a_group_is_at_most_the_truest_and_what_does_not_vary_has_no_rank(found):
    rewards, truth = map(np.array, zip(*found, strict=True))
    assert truth.min() - 1e-12 <= findings.best_of_group(rewards, truth) <= truth.max() + 1e-12
    assert findings.best_of_group(truth, truth) == pytest.approx(truth.max())
    assert findings.best_of_group(np.ones(len(truth)), truth) == pytest.approx(truth.mean())
    assert np.isnan(findings.rank_correlation(np.ones(len(truth)), truth))
    assert np.ptp(truth) == 0 or findings.rank_correlation(truth, truth) == 1


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12))
def test_macro_f1_is_scikit_learn_s_and_by_hand_of_choices_that_labels_share(rows):
    gold, picked = map(np.array, zip(*rows, strict=True))
    theirs = f1_score(gold, picked, labels=np.unique(gold), average="macro", zero_division=0)
    assert findings.shared_macro_f1(np.eye(4)[gold], np.eye(4)[picked]) == pytest.approx(theirs)
    picked = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 0.0]])  # sure and right, undecided, none made
    # B: 2 x 1.5 / (2 + 1.5); T: 2 x 0 / (1 + 0.5)
    assert findings.shared_macro_f1(np.eye(2)[[0, 0, 1]], picked) == pytest.approx((3 / 3.5 + 0) / 2)


@given(st.lists(levels | st.just(float("nan")), max_size=12))
def test_a_mean_counts_those_that_have_a_value(values):
    known = [value for value in values if not np.isnan(value)]
    found = findings.Counting(0, 50).mean(values)
    assert found["n"] == len(known)
    assert found["value"] == (pytest.approx(np.mean(known)) if known else None)
    assert not known or min(known) - 1e-12 <= found["interval"][0] <= found["interval"][1] <= max(known) + 1e-12
