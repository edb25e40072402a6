from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from cellduality_plugin.evaluation.metrics import labels
from cellduality_plugin.evaluation.metrics.labels import accuracy, macro_f1
from cellduality_plugin.evaluation.predictions import Prediction

ANNOTATION = "cell_type_annotation"
label_pairs = st.lists(st.tuples(st.sampled_from("ABCD"), st.sampled_from(["A", "B", "C", "D", ""])), min_size=1)


@pytest.fixture
def reference(sections):
    return sections[ANNOTATION].reference


def answer(row: str, sample: int, told: str | None, gold: str | None, **fields) -> Prediction:
    return Prediction(row, ANNOTATION, sample, ("G1",), gold, "", told, "" if told else "no_answer", **fields)


@given(label_pairs, st.randoms(use_true_random=False))
def test_label_metrics_are_scikit_learns_in_any_order(pairs: list[tuple[str, str]], random) -> None:
    gold, predicted = zip(*pairs, strict=True)
    expected = f1_score(gold, predicted, labels=sorted(set(gold)), average="macro", zero_division=0)
    assert macro_f1(gold, predicted) == pytest.approx(expected)
    assert accuracy(gold, predicted) == accuracy_score(gold, predicted)
    random.shuffle(pairs)
    assert macro_f1(*zip(*pairs, strict=True)) == pytest.approx(expected)


def test_greedy_labels_by_hand(reference) -> None:
    made = [answer(str(n), 0, a, g) for n, (a, g) in enumerate([("B", "B"), ("T", "B"), (None, "T"), ("T", "T")])]
    both = labels.gold_and_predicted([*made, answer("9", 0, "B", None)])  # without gold: neither right nor wrong
    assert both == (["B", "B", "T", "T"], ["B", "T", "", "T"])
    found = labels.measure(reference, both)
    assert found.keys() == {"accuracy", "macro_f1"}
    assert found["accuracy"].value == 0.5
    assert found["macro_f1"].value == pytest.approx((2 / 3 + 1 / 2) / 2)
    low, high = found["accuracy"].interval
    assert 0 <= low < 0.5 < high <= 1
    assert labels.confusion(["A", "A", "B"], ["B", "", "B"], ["A", "B"]).tolist() == [[0, 1, 1], [0, 1, 0]]


def test_drawn_labels_by_hand(reference) -> None:
    answers = {"1": ("B", ["B", "B", "T"]), "2": ("T", ["B", None, "T"]), "3": ("NK", [None, None, None])}
    made = [answer(r, s, a, gold) for r, (gold, told) in answers.items() for s, a in enumerate(told)]
    found = labels.measure(reference, drawn=labels.by_cell([*made, answer("4", 0, "B", None)]))
    assert found["sampled_accuracy"].value == pytest.approx(3 / 9)
    assert found["majority_accuracy"].value == pytest.approx(1 / 3), "the first of T and B was B"
    f1 = {"B": 2 / (3 / 2 + 3 / 2), "T": 2 / (2 + 3)}
    assert found["sampled_macro_f1"].value == pytest.approx(sum(f1.values()) / 3)
    assert (found["sampled_accuracy"].n, found["majority_accuracy"].n) == (9, 3)
    assert found["sampled_accuracy"].note == "3 drawn a cell"


def test_draws_of_one_cell_are_one_piece_of_evidence_in_any_order(reference) -> None:
    rng = np.random.default_rng(0)
    right = rng.random(60) < 0.5

    def drawn(count: int) -> list[Prediction]:
        return [answer(str(r), s, "B" if ok else "T", "B") for r, ok in enumerate(right) for s in range(count)]

    one, ten = (labels.measure(reference, drawn=labels.by_cell(drawn(count))) for count in (1, 10))
    assert one["sampled_accuracy"].interval == ten["sampled_accuracy"].interval
    shuffled = [drawn(10)[place] for place in rng.permutation(600)]
    assert labels.measure(reference, drawn=labels.by_cell(shuffled)) == ten


def test_the_dual_counts_failures_as_nothing_and_is_told_the_truth(reference) -> None:
    made = [
        answer("1", 0, "B", "T", similarity=0.9, truth_similarity=0.2),
        answer("1", 1, "B", "T", similarity=0.9, dual_failure="empty"),
        answer("2", 0, None, "T", truth_similarity=0.4),
    ]
    found = labels.measure_duals(reference, made, made[:2])
    assert {key: (pytest.approx(each.value), each.n) for key, each in found.items()} == {
        "dual_similarity": (0.6, 3), "sampled_dual_similarity": (0.9, 2), "dual_given_truth": (0.3, 2),
    }  # fmt: skip
    assert labels.measure_duals(reference, made, truth=False).keys() == {"dual_similarity"}
    assert labels.failures(made) == {"dual_empty": 1, "no_answer": 1}
