from __future__ import annotations

import numpy as np
import pytest

from cellduality_plugin.evaluation.metrics import bootstrap_interval
from cellduality_plugin.evaluation.page.summary import headlines, sentences

LABELS, CELLS = "cell_type_annotation", "conditional_cell_generation@ood"


def metric(value, interval=None, better="higher"):
    return {"value": value, "better": better, "interval": interval}


def evaluation(before, after, baselines=(), real=None, key=f"{LABELS}/accuracy"):
    columns = {
        "SFT": {"kind": "checkpoint", "metrics": {key: before}},
        "GRPO": {"kind": "checkpoint", "metrics": {key: after}},
        **{name: {"kind": "baseline", "metrics": {key: found}} for name, found in baselines},
        "real cells": {"kind": "real", "metrics": {} if real is None else {key: real}},
    }
    return {"columns": columns, "spaces": {key.rpartition("/")[0]: ""}, "settings": {"neighbours": [3]}}


def one(*args, **kwargs):
    [found] = headlines(evaluation(*args, **kwargs), ["SFT", "GRPO"])
    return found


@pytest.mark.parametrize(
    ("before", "after", "better", "verdict", "gain"),
    [
        (metric(0.5, [0.4, 0.6]), 0.7, "higher", "better", 0.2),
        (metric(0.5, [0.4, 0.6]), 0.3, "higher", "worse", -0.2),
        (metric(0.5, [0.4, 0.6]), 0.64, "higher", "within interval", 0.14),
        (metric(0.5, [0.4, 0.6]), 0.65, "higher", "better", 0.15),
        (metric(0.5, [0.4, 0.6], "lower"), 0.3, "lower", "better", 0.2),
        (metric(0.5, [0.4, 0.6], "lower"), 0.7, "lower", "worse", -0.2),
        (metric(0.5, None), 0.7, "higher", "within interval", 0.2),
        (metric(0.5, [0.4, 0.6]), 0.50001, "higher", "unchanged", 0.00001),
        (metric(None), 0.7, "higher", "–", None),
    ],
)
def test_a_change_counts_beyond_what_both_intervals_allow_together(before, after, better, verdict, gain):
    found = one(before, metric(after, [after - 0.1, after + 0.1], better))
    assert found.verdict == verdict
    assert found.gain == (None if gain is None else pytest.approx(gain))
    assert one(before, metric(after, None, better)).outside is False


def test_a_change_between_two_measurements_of_one_thing_counts_about_as_seldom_as_it_should():
    """Two checkpoints that are right equally often, measured on different cells: at most five changes of a hundred."""
    rng = np.random.default_rng(0)
    wrongly = 0
    for trial in range(200):
        right = rng.random((2, 80)) < 0.6
        before, after = (
            metric(float(each.mean()), bootstrap_interval(np.mean, each, seed=trial, resamples=100)) for each in right
        )
        wrongly += one(before, after).outside
    assert wrongly / 200 <= 0.08


def test_the_best_of_a_headline_is_whoever_it_is():
    assert one(metric(0.5), metric(0.7), [("a", metric(0.6))]).best == {"after"}
    assert one(metric(0.5), metric(0.5), [("a", metric(0.8))]).best == {"baseline"}
    assert one(metric(0.5), metric(0.5)).best == {"before", "after"}


def test_the_best_baseline_is_told_and_whether_it_wins():
    found = one(metric(0.5), metric(0.7), [("majority", metric(0.2)), ("logistic regression", metric(0.8))])
    assert (found.baseline[0], found.beaten) == ("logistic regression", True)
    assert not one(metric(0.5), metric(0.7), [("majority", metric(0.2))]).beaten
    lower = one(metric(0.5, better="lower"), metric(0.7, better="lower"), [("a", metric(0.6, better="lower"))])
    assert lower.beaten
    assert one(metric(0.5), metric(0.7), [("none", metric(None))]).baseline is None


def test_the_summary_opens_with_what_changed_and_names_baselines_that_win():
    before, after = metric(0.5, [0.4, 0.6]), metric(0.7, [0.6, 0.8])
    metrics = evaluation(before, after, [("logistic regression", metric(0.8))], real=metric(0.9))
    told = sentences(headlines(metrics, ["SFT", "GRPO"]), ["SFT", "GRPO"])
    assert told == [
        "GRPO is better than SFT, beyond the 95 % interval of the change, in 1 of 1 headline metric: "
        "cell type annotation (accuracy 0.500 to 0.700); worse in 0.",
        "A baseline is ahead of GRPO in 1 of the 1 that have one: logistic regression in cell type annotation.",
        "Cell type annotation: accuracy 0.700; 0.500 before (SFT); logistic regression 0.800; real cells 0.900.",
    ]


def test_one_checkpoint_has_no_before():
    metrics = evaluation(metric(0.5), metric(0.7))
    [found] = headlines(metrics, ["SFT"])
    assert (found.before, found.after["value"], found.verdict) == (None, 0.5, "–")
    assert sentences([found], ["SFT"]) == ["Cell type annotation: accuracy 0.500."]


def test_cells_are_summed_up_by_the_first_number_of_neighbours():
    found = one(metric(0.1), metric(0.2), key=f"{CELLS}/knn_agreement_3")
    assert found.metric == "k-NN agreement (3) ↑"
    assert headlines(evaluation(metric(0.1), metric(0.2), key=f"{CELLS}/knn_agreement_5"), ["SFT", "GRPO"]) == []
    assert headlines(evaluation(metric(0.1), metric(None)), ["SFT", "GRPO"]) == []
