"""Metrics of labels and of the dual, intervals, and the registry from which names, titles and headlines follow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from cellduality_plugin.evaluation.compare import headline_of
from cellduality_plugin.evaluation.distances import mmd, resampled
from cellduality_plugin.evaluation.metrics import labels
from cellduality_plugin.evaluation.metrics.labels import accuracy, macro_f1
from cellduality_plugin.evaluation.metrics.registry import load_metric, metric, titled
from cellduality_plugin.evaluation.metrics.statistics import bootstrap_interval, centred_interval
from cellduality_plugin.evaluation.predictions import Prediction
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.tasks import TASKS
from tests.refused import refused

ANNOTATION = "cell_type_annotation"
label_pairs = st.lists(st.tuples(st.sampled_from("ABCD"), st.sampled_from(["A", "B", "C", "D", ""])), min_size=1)


@pytest.fixture(scope="module")
def section(sections):
    return sections[ANNOTATION]


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


def test_greedy_labels_by_hand(section) -> None:
    made = [answer(str(n), 0, a, g) for n, (a, g) in enumerate([("B", "B"), ("T", "B"), (None, "T"), ("T", "T")])]
    made.append(answer("9", 0, "B", None))  # without gold: neither right nor wrong
    found = labels.measure(made, section)
    assert found.keys() == {"accuracy", "macro_f1"}
    assert (found["accuracy"].value, found["accuracy"].n) == (0.5, 4)
    assert found["macro_f1"].value == pytest.approx((2 / 3 + 1 / 2) / 2)
    low, high = found["accuracy"].interval
    assert 0 <= low < 0.5 < high <= 1
    assert labels.confusion(made, section, ["B", "T"]).tolist() == [[1, 1, 0], [0, 1, 1]]


def test_drawn_labels_by_hand(section) -> None:
    answers = {"1": ("B", ["B", "B", "T"]), "2": ("T", ["B", None, "T"]), "3": ("NK", [None, None, None])}
    made = [answer(r, s, a, gold, drawn=True) for r, (gold, told) in answers.items() for s, a in enumerate(told)]
    found = labels.measure([*made, answer("4", 0, "B", None, drawn=True)], section)
    assert found["sampled_accuracy"].value == pytest.approx(3 / 9)
    assert found["majority_accuracy"].value == pytest.approx(1 / 3), "the first of T and B was B"
    f1 = {"B": 2 / (3 / 2 + 3 / 2), "T": 2 / (2 + 3)}
    assert found["sampled_macro_f1"].value == pytest.approx(sum(f1.values()) / 3)
    assert (found["sampled_accuracy"].n, found["majority_accuracy"].n) == (9, 3)
    assert found["sampled_accuracy"].note == "3 drawn a cell"


def test_draws_of_one_cell_are_one_piece_of_evidence_in_any_order(section) -> None:
    rng = np.random.default_rng(0)
    right = rng.random(60) < 0.5

    def drawn(count: int) -> list[Prediction]:
        rows = enumerate(right)
        return [answer(str(r), s, "B" if ok else "T", "B", drawn=True) for r, ok in rows for s in range(count)]

    one, ten = (labels.measure(drawn(count), section) for count in (1, 10))
    assert one["sampled_accuracy"].interval == ten["sampled_accuracy"].interval
    assert labels.measure([drawn(10)[place] for place in rng.permutation(600)], section) == ten


def test_the_dual_counts_failures_as_nothing_and_is_told_the_truth(section) -> None:
    drawn = [
        answer("1", 0, "B", "T", similarity=0.9, truth_similarity=0.2, drawn=True),
        answer("1", 1, "B", "T", similarity=0.9, dual_failure="empty", drawn=True),
    ]
    made = [*(replace(p, drawn=False) for p in drawn), answer("2", 0, None, "T", truth_similarity=0.4)]
    found = labels.measure_duals([*made, *drawn], section)
    assert {key: (pytest.approx(each.value), each.n) for key, each in found.items()} == {
        "dual_similarity": (0.6, 3), "sampled_dual_similarity": (0.9, 2), "dual_given_truth": (0.3, 2),
    }  # fmt: skip
    assert labels.failures(made) == {"dual_empty": 1, "no_answer": 1}


def test_centred_intervals_cover_what_samples_of_that_size_have_on_average() -> None:
    rng, covered = np.random.default_rng(0), 0
    draws = [(rng.normal(size=(40, 10)), rng.normal(size=(40, 10)) + 0.3) for _ in range(80)]
    values = [mmd(*draw, bandwidth=3.0)[0] for draw in draws]
    for value, draw in zip(values, draws, strict=True):
        found = mmd(*draw, (resampled(40, rng), resampled(40, rng)), bandwidth=3.0)
        low, high = centred_interval(value, found, 0.0)
        covered += low <= np.mean(values) <= high
    assert covered >= 72, "percentiles as they are cover 60: resamples are further apart than samples"


OWN = """
from cellduality_plugin.evaluation.metrics import metric

@metric("errors", "labels wrong", "lower", group="labels")
def errors(gold, predicted):
    return float((gold != predicted).mean())

def plain(cells):
    return 0.0
"""


def test_a_metric_of_ones_own_is_measured_of_greedy_and_drawn_labels_and_others_refused(section, answered, tmp_path):
    own = tmp_path / "own.py"
    own.write_text(OWN)
    load_metric(f"{own}:errors")
    found = labels.measure(section.own(answered), section)
    assert [(found[key].value, found[key].better) for key in ("errors", "sampled_errors")] == [(0, "lower")] * 2
    for path in (f"{own}:plain", f"{own}:nothing", "no.such.module:metric", str(own), "nowhere.py:length"):
        with refused("wrong-metric"):
            load_metric(path)
    with refused("repeated-name"):
        metric("accuracy", "accuracy", "higher", group="labels")(lambda gold, predicted: 0.0)


def test_titles_know_variants_and_every_task_has_a_headline_that_decides() -> None:
    assert titled("coarse_sampled_accuracy") == "sampled shared type"
    assert (titled("delta_error"), titled("shift_error")) == ("MSE Δ, DE genes", "shift error")
    for name, task in TASKS.items():
        cell = "shift_error" if "control" in task.needs else "knn_agreement_10"
        assert headline_of(f"{name}/{'accuracy' if isinstance(task.answer, OneOf) else cell}") == 1
        assert headline_of(f"{name}/dual_similarity") == 0
    assert headline_of("perturbation_response_generation@ood/knn_agreement_10") == 2


def test_bootstrap_intervals_are_seeded_and_cover_the_truth_about_as_often_as_they_say() -> None:
    samples = np.random.default_rng(0).normal(size=(200, 60))
    found, again = (
        [bootstrap_interval(np.mean, each, seed=n, resamples=200) for n, each in enumerate(samples)] for _ in "ab"
    )
    assert found == again != [bootstrap_interval(np.mean, each, seed=7, resamples=200) for each in samples]
    assert 0.88 <= np.mean([low <= 0 <= high for low, high in found]) <= 0.99
