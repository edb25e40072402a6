"""The arithmetic of an audit against scikit-learn and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import spearmanr
from sklearn.metrics import f1_score, roc_auc_score

from cellduality_plugin.evaluation.audit import statistics

# Multiples of a power of two, as rewards are: ties are common and sums exact.
levels = st.integers(0, 16).map(lambda number: number / 16)
shapes = st.tuples(st.integers(2, 8), st.integers(1, 5))
matrices = shapes.flatmap(lambda shape: arrays(float, shape, elements=levels))


@given(st.lists(levels, min_size=1, max_size=6), st.lists(levels, min_size=1, max_size=12))
def test_pairwise_auc_is_the_area_under_the_roc_curve(true, wrong):
    ours = statistics.pairwise_auc(np.array(true), np.array(wrong))
    theirs = roc_auc_score([1] * len(true) + [0] * len(wrong), true + wrong)
    assert ours == pytest.approx(theirs)


def test_without_a_pair_there_is_no_auc():
    assert np.isnan(statistics.pairwise_auc(np.array([1.0]), np.array([])))


@given(st.lists(st.tuples(levels, levels), min_size=2, max_size=12))
def test_rank_correlation_is_spearman_s(pairs):
    rewards, truth = map(np.array, zip(*pairs, strict=True))
    assume(np.ptp(rewards) and np.ptp(truth))
    assert statistics.rank_correlation(rewards, truth) == pytest.approx(spearmanr(rewards, truth).statistic)


def test_rank_correlation_leaves_out_what_has_no_truth():
    rewards, truth = np.array([0.1, 0.5, 0.9]), np.array([0.2, np.nan, 0.4])
    assert statistics.rank_correlation(rewards, truth) == 1.0
    assert np.isnan(statistics.rank_correlation(rewards[:2], truth[:2]))
    assert np.isnan(statistics.rank_correlation(np.ones(3), np.arange(3.0)))


@given(matrices, st.integers(1, 8))
def test_a_block_is_the_mean_over_its_masks(rewards, masks):
    blocks = statistics.in_blocks(rewards, masks)
    size = min(masks, rewards.shape[1])
    assert blocks.shape == (len(rewards), rewards.shape[1] // size)
    for place in range(blocks.shape[1]):
        assert blocks[:, place] == pytest.approx(rewards[:, place * size : (place + 1) * size].mean(axis=1))


@given(matrices, st.integers(0, 5))
def test_a_choice_is_among_the_best_paid(rewards, seed):
    picked = statistics.choices(rewards, np.random.default_rng(seed))
    assert (rewards[picked, np.arange(rewards.shape[1])] == rewards.max(axis=0)).all()


def test_equals_are_chosen_evenly():
    rng = np.random.default_rng(0)
    picked = [int(statistics.choices(np.ones((4, 1)), rng)[0]) for _ in range(400)]
    assert min(np.bincount(picked, minlength=4)) > 60


@given(matrices)
def test_zero_variance_counts_flat_blocks(rewards):
    flat = np.mean([len(set(block)) == 1 for block in rewards.T])
    assert statistics.zero_variance(rewards) == flat
    assert statistics.zero_variance(rewards, 2.0) == 1.0


@given(st.lists(matrices, min_size=1, max_size=4))
def test_signal_to_noise_is_that_of_its_definition(cells):
    cells = [cell for cell in cells if cell.shape[1] > 1]
    assume(cells)
    noise = np.mean([np.mean([np.var(answer, ddof=1) for answer in cell]) for cell in cells])
    signal = np.mean([np.var([answer.mean() for answer in cell], ddof=1) for cell in cells])
    found = statistics.signal_to_noise(cells)
    assert (found is None) == (noise == 0)
    if found is not None:
        assert found == pytest.approx(signal / noise, rel=1e-6, abs=1e-8)


def test_one_mask_has_no_noise():
    assert statistics.signal_to_noise([np.array([[0.1], [0.9]])]) is None


@given(st.lists(st.tuples(levels, levels), min_size=1, max_size=8))
def test_the_best_of_a_group_is_at_most_the_truest(pairs):
    rewards, truth = map(np.array, zip(*pairs, strict=True))
    best = statistics.best_of_group(rewards, truth)
    assert truth.min() - 1e-12 <= best <= truth.max() + 1e-12
    assert statistics.best_of_group(truth, truth) == pytest.approx(truth.max())
    assert statistics.best_of_group(np.ones(len(truth)), truth) == pytest.approx(truth.mean())


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12))
def test_macro_f1_over_blocks_is_the_mean_of_scikit_learn_s(rows):
    gold, *blocks = map(np.array, zip(*rows, strict=True))
    theirs = [f1_score(gold, block, labels=np.unique(gold), average="macro", zero_division=0) for block in blocks]
    assert statistics.mean_macro_f1(gold, np.array(blocks).T) == pytest.approx(np.mean(theirs))


@given(st.lists(levels | st.just(float("nan")), max_size=12))
def test_a_mean_counts_those_that_have_a_value(values):
    known = [value for value in values if not np.isnan(value)]
    found = statistics.mean_over_cells(values, seed=0, resamples=50)
    assert found.n == len(known)
    if known:
        assert found.value == pytest.approx(np.mean(known))
        assert min(known) - 1e-12 <= found.interval[0] <= found.interval[1] <= max(known) + 1e-12
    else:
        assert (found.value, found.interval) == (None, None)
