from __future__ import annotations

import json

import numpy as np
import pytest

from cellduality_plugin.evaluation.metrics.statistics import bootstrap_interval
from cellduality_plugin.evaluation.page.results import confusions, section_tables
from cellduality_plugin.evaluation.tables import compared, headlines, sentences

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


@pytest.mark.parametrize(
    ("baselines", "better", "best", "name", "beaten"),
    [
        ({"a": 0.6}, "higher", {"after"}, "a", False),
        ({"a": 0.2, "b": 0.8}, "higher", {"baseline"}, "b", True),
        ({"a": 0.6, "b": 0.8}, "lower", {"before"}, "a", True),
        ({"a": None}, "higher", {"after"}, "", False),
    ],
)
def test_the_best_of_a_headline_and_whether_a_baseline_wins(baselines, better, best, name, beaten):
    rivals = [(each, metric(value, better=better)) for each, value in baselines.items()]
    found = one(metric(0.5, better=better), metric(0.7, better=better), rivals)
    assert (found.best, found.baseline[0] if found.baseline else "", found.beaten) == (best, name, beaten)
    assert one(metric(0.5), metric(0.5)).best == {"before", "after"}


def test_the_summary_opens_with_what_changed_and_names_baselines_that_win():
    before, after = metric(0.5, [0.4, 0.6]), metric(0.7, [0.6, 0.8])
    metrics = evaluation(before, after, [("logistic regression", metric(0.8))], real=metric(0.9))
    change, baselines = sentences(headlines(metrics, ["SFT", "GRPO"]), ["SFT", "GRPO"])
    assert "in 1 of 1 headline metric: cell type annotation (accuracy 0.500 to 0.700); worse in 0." in change
    assert "in 1 of the 1 that have one: logistic regression in cell type annotation." in baselines
    [alone] = headlines(evaluation(metric(0.5), metric(0.7)), ["SFT"])
    assert (alone.before, alone.after["value"], alone.verdict) == (None, 0.5, "–")
    assert sentences([alone], ["SFT"]) == []


@pytest.mark.parametrize(
    ("checkpoints", "pair"),
    [("SFT refit GRPO", ["SFT", "GRPO"]), ("base SFT", ["base", "SFT"]), ("a b c", ["b", "c"]), ("a", ["a"]), ("", [])],
)
def test_the_last_checkpoint_is_held_against_sft_or_the_one_before(checkpoints, pair):
    columns = {name: {"kind": "checkpoint"} for name in checkpoints.split()} | {"majority": {"kind": "baseline"}}
    assert compared({"columns": columns}) == pair


def test_cells_are_summed_up_by_the_first_number_of_neighbours():
    assert one(metric(0.1), metric(0.2), key=f"{CELLS}/knn_agreement_3").metric == "k-NN agreement (3) ↑"
    assert headlines(evaluation(metric(0.1), metric(0.2), key=f"{CELLS}/knn_agreement_5"), ["SFT", "GRPO"]) == []
    assert headlines(evaluation(metric(0.1), metric(None)), ["SFT", "GRPO"]) == []


@pytest.fixture
def measured(run_of_two):
    return json.loads((run_of_two / "metrics.json").read_text())


def test_a_table_a_section_in_which_real_cells_are_no_contestant_and_how_each_number_was_measured(measured):
    tables = {table["name"]: table for table in section_tables(measured)}
    assert len(tables) == len(measured["spaces"])
    for table in tables.values():
        assert all(set(cells) <= set(table["columns"]) for _, cells, _ in table["rows"])
        assert all("real cells" not in winners for _, _, winners in table["rows"])
        assert all(winners for name, _, winners in table["rows"] if name.startswith(("accuracy", "diversity")))
        assert list(table["how"]) == [name for name, _, _ in table["rows"]]
        assert all("Range" in told and "n = " in told for told in table["how"].values())
    how = tables["conditional cell generation"]["how"]
    assert how["MMD² ↓"].startswith("MMD^2, biased V-statistic, mean over draws. RBF, sigma")
    assert "Range 0 to 2, best 0." in how["MMD² ↓"]
    assert "best as real cells" in how["spread within types ≈"]
    assert "n = 60 (GRPO)" in how["k-NN agreement (5) ↑"]


def test_what_no_column_has_is_told_once_with_its_reason(measured):
    for column in measured["columns"].values():
        for key, cell in column["metrics"].items():
            if "@ood/scfid" in key:
                cell |= {"value": None, "interval": None, "note": "mean over 0 of 2 types; more"}
    found = {table["name"]: table for table in section_tables(measured)}
    table = found["perturbation response generation, held-out cell types"]
    assert table["unmeasured"] == {"mean over 0 of 2 types": ["scFID", "scFID, shrunk"]}
    assert not any("scFID" in row for row, _, _ in table["rows"])
    assert found["cell type annotation"]["unmeasured"] == {}


def test_a_confusion_matrix_leaves_out_labels_that_no_cell_has_and_nobody_answers():
    counts = [[3, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 2]]
    matrix = {"labels": ["B", "NK", "T"], "counts": counts}
    metrics = {"columns": {"SFT": {"confusion": {"cell_type_annotation": matrix}}}}
    [found] = confusions(metrics, ["SFT"])["cell type annotation"]
    assert found["labels"] == ["B", "T"]
    assert found["rows"] == [("B", 5, [(3, 0.6), (1, 0.2), (1, 0.2)]), ("T", 2, [(0, 0.0), (0, 0.0), (2, 1.0)])]
    assert found["read"] == (4, 7)
