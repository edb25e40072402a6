from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from cellduality_plugin.evaluation import metrics
from cellduality_plugin.parsing import Answer

seeds = st.integers(0, 2**32 - 1)
label_pairs = st.lists(st.tuples(st.sampled_from("ABCD"), st.sampled_from(["A", "B", "C", "D", ""])), min_size=1)


@given(label_pairs)
def test_label_metrics_agree_with_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    gold, predicted = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    expected = f1_score(gold, predicted, labels=sorted(set(gold)), average="macro", zero_division=0)
    assert metrics.macro_f1(gold, predicted) == pytest.approx(expected)
    assert metrics.accuracy(gold, predicted) == accuracy_score(gold, predicted)


@given(label_pairs, seeds)
def test_order_of_cells_does_not_change_label_metrics(pairs: list[tuple[str, str]], seed: int) -> None:
    shuffled = [pairs[place] for place in np.random.default_rng(seed).permutation(len(pairs))]
    for measure in (metrics.accuracy, metrics.macro_f1):
        value = measure(*zip(*pairs, strict=True))
        assert value == pytest.approx(measure(*zip(*shuffled, strict=True)))
        assert 0 <= value <= 1


@pytest.mark.parametrize("measure", [metrics.accuracy, metrics.macro_f1])
def test_label_metrics_of_the_gold_itself_are_best(measure) -> None:
    assert measure(["A", "B", "B"], ["A", "B", "B"]) == 1
    with pytest.raises(ValueError, match="2 gold labels and 1 predicted"):
        measure(["A", "B"], ["A"])
    with pytest.raises(ValueError, match="0 gold labels"):
        measure([], [])


def test_a_label_only_the_predictions_hold_has_no_f1_of_its_own() -> None:
    # gold A: 1 of 2 found, never wrongly -> F1 2/3; gold B: perfect; "C" would add a zero
    assert metrics.macro_f1(["A", "A", "B"], ["A", "C", "B"]) == pytest.approx((2 / 3 + 1) / 2)


def test_confusion_counts_unreadable_answers_last() -> None:
    counts = metrics.confusion(["A", "A", "B"], ["B", "", "B"], ["A", "B"])
    assert counts.tolist() == [[0, 1, 1], [0, 1, 0]]


def test_rates_of_answers() -> None:
    perfect = Answer(("A", "B"), listed=2)
    assert metrics.validity_rate([perfect]) == 1
    assert metrics.duplicate_rate([perfect]) == 0
    unread = Answer(None, failure="no_answer")
    assert metrics.validity_rate([perfect, unread]) == 0.5
    assert metrics.duplicate_rate([perfect, unread]) == 0
    assert metrics.duplicate_rate([unread]) is None
    repeats = Answer(("A",), listed=6, unknown=2, repeated=3)
    assert metrics.duplicate_rate([repeats]) == 0.75
    assert metrics.validity_rate([repeats]) == pytest.approx(4 / 6)
    assert metrics.distinct_rate([("A", "B"), ("B", "A")]) == 1


def test_bootstrap_is_seeded_and_covers_the_truth_about_as_often_as_it_says() -> None:
    def mean(x: np.ndarray) -> float:
        return float(np.mean(x))

    assert metrics.bootstrap_interval(mean, np.arange(9.0), seed=3) == metrics.bootstrap_interval(
        mean, np.arange(9.0), seed=3
    )
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        low, high = metrics.bootstrap_interval(mean, rng.normal(size=60), seed=trial, resamples=200)
        covered += low <= 0 <= high
    assert 0.88 <= covered / 200 <= 0.99


@given(st.lists(st.floats(0, 1), min_size=2, max_size=12), st.integers(2, 5))
def test_draws_of_one_row_are_no_evidence_of_their_own(values: list[float], draws: int) -> None:
    rows = [f"row {place}" for place in range(10, 10 + len(values))]
    once = metrics.mean_interval(values, rows, seed=0, resamples=50)
    assert metrics.mean_interval(values * draws, rows * draws, seed=0, resamples=50) == pytest.approx(once)
    each_its_own = metrics.bootstrap_interval(lambda x: float(np.mean(x)), values, seed=0, resamples=50)
    assert once == pytest.approx(each_its_own)
