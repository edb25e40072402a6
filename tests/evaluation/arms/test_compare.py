from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.compare import compare, judge
from cellduality_plugin.evaluation.compare_tables import (
    as_csv,
    as_json,
    goal_lines,
    headline_rows,
    markdown,
    seeds_table,
)
from cellduality_plugin.evaluation.seeds import Share, Spread, gap_of, share_of

KEY, ERROR = "cell_type_annotation/accuracy", "perturbation_response_generation/shift_error"

value = st.floats(0, 1).map(lambda number: round(number, 4))
seed = st.fixed_dictionaries({"SFT": value, "oracle": value, "paper": value, "majority": value})
gain = st.floats(-1, 1, allow_nan=False).map(lambda number: round(number, 6))
pairs = st.lists(st.tuples(gain, gain), min_size=2, max_size=8)


@pytest.fixture
def rows(table6):
    return {row.key: row for row in compare(table6)}


def arm(row, name):
    return next(arm for arm in row.arms if arm.name == name)


@pytest.mark.parametrize(
    ("key", "name", "share", "outcome", "verdict"),
    [
        # The oracle gains 0.2, 0.21, 0.19; the arm 0.1, 0.1, 0.11.
        (KEY, "paper", 31 / 60, "closes", "closes 52 % of the gap"),
        # The oracle's error falls by 0.2, 0.21, 0.19; the arm's by 0.1, 0.09, 0.1.
        (ERROR, "paper", 29 / 60, "falls short", "closes 48 % of the gap"),
        (KEY, "default", -1 / 2, "harms", "harms (-0.100)"),
        ("drug_exposure_prediction/accuracy", "paper", None, "no gap", "no gap to close"),
        ("drug_exposure_prediction/accuracy", "oracle", None, "no gap", "no gap (0.000)"),
        (KEY, "oracle", 1, "closes", "a gap (+0.200)"),
    ],
)
def test_arms_by_hand(key, name, share, outcome, verdict, rows):
    found = arm(rows[key], name)
    assert (found.share and found.share.value) == (share and pytest.approx(share))
    assert (found.outcome, found.verdict) == (outcome, verdict)


@pytest.mark.parametrize(
    ("gains", "gap", "share", "outcome"),
    [
        ([-0.1, -0.2], None, None, "may harm"),  # an interval over two seeds is wide
        ([-0.1, -0.1001], "certain", -0.5, "harms"),
        ([0.1, -0.2, 0.1], "certain", 0.0, "falls short"),
        ([0.1, 0.1001], "none", None, "no gap"),
        ([0.1, 0.1001], None, None, "gains"),
        ([0.1, -0.1], None, None, "no change"),
        ([0.1], "certain", 1.0, "unknown"),
        ([0.1, 0.1001], "likely", 0.5, "closes"),
        ([0.1, 0.1001], "likely", 0.49, "falls short"),
    ],
)
def test_outcomes(gains, gap, share, outcome):
    spread = Spread.of(gains)
    assert judge(spread, spread, gap, None if share is None else Share(share, None))[0] == outcome


def test_the_best_of_a_row_may_be_a_baseline_but_never_real_cells(rows, make_runs):
    assert rows[KEY].best() == rows[ERROR].best() == {"oracle"}
    [row] = compare(make_runs({KEY: ("higher", {"SFT": [0.5], "majority": [0.6], "real cells": [0.9]})}), oracle="")
    assert row.best() == {"majority"}


def test_without_an_oracle_there_are_no_shares_and_one_seed_says_nothing(table6):
    assert {arm.verdict for row in compare(table6[:1]) for arm in row.arms} == {"one seed says nothing"}
    for run in table6:
        del run["columns"]["oracle"]
    rows = compare(table6, oracle="")
    assert {row.gap for row in rows} == {arm.share for row in rows for arm in row.arms} == {None}
    assert arm(rows[0], "paper").verdict == "gains (+0.103)"


def test_a_metric_that_a_seed_lacks_is_left_out_for_that_column_alone(table6, make_runs):
    table6[1]["columns"]["paper"]["metrics"][KEY]["value"] = None
    row = next(row for row in compare(table6) if row.key == KEY)
    assert (row.values["paper"], [arm.name for arm in row.arms]) == ((), ["oracle", "default"])
    for name in ("oracle", "SFT"):
        table6[1]["columns"][name]["metrics"].pop(KEY, None)
        rows = {row.key: row for row in compare(table6)}
        assert (rows[KEY].gap is None) if name == "oracle" else (KEY not in rows)
    no_direction = make_runs({"a/spread": ("like real cells", {"SFT": [1.0, 2.0], "oracle": [1.0, 1.0]})})
    assert compare(no_direction) == []


@pytest.mark.parametrize(("columns", "flag"), [({"reference": "sft"}, "--reference"), ({"oracle": "gold"}, "--oracle")])
def test_a_column_that_is_not_there_is_told_with_those_that_are(columns, flag, table6):
    with pytest.raises(CellDualityError, match="choose among base, SFT, oracle, paper, default") as told:
        compare(table6, **columns)
    assert told.value.where == flag


def test_runs_of_different_kinds_are_not_mixed(make_runs):
    [run] = make_runs({KEY: ("higher", {"SFT": [0.5]})})
    [other] = make_runs({KEY: ("higher", {"GRPO": [0.5]})})
    for runs in ([], [run, other], [run, {**run, "split": "validation"}]):
        for over in (lambda runs: compare(runs, oracle=""), seeds_table):
            with pytest.raises(CellDualityError, match="not of one kind"):
                over(runs)


def by_column(seeds, sign=1):
    return {name: [sign * run[name] for run in seeds] for name in ("SFT", "oracle", "paper", "majority")}


@given(seeds=st.lists(seed, min_size=2, max_size=6), random=st.randoms(use_true_random=False))
def test_neither_the_order_of_the_seeds_nor_the_direction_changes_a_verdict(seeds, random, make_runs):
    [up] = compare(make_runs({KEY: ("higher", by_column(seeds))}))
    [down] = compare(make_runs({KEY: ("lower", by_column(seeds, -1))}))
    random.shuffle(seeds)
    [mixed] = compare(make_runs({KEY: ("higher", by_column(seeds))}))
    assert repr((up.arms, up.gap, up.best())) == repr((mixed.arms, mixed.gap, mixed.best()))
    assert (up.gap, up.best()) == (down.gap, down.best())
    for first, second in zip(up.arms, down.arms, strict=True):
        assert (first.gain, first.share, first.outcome) == (second.gain, second.share, second.outcome)
        assert first.change.mean == -second.change.mean


@given(seeds=st.lists(seed, min_size=2, max_size=6))
def test_an_arm_that_is_the_oracle_closes_all_or_meets_no_gap(seeds, make_runs):
    [row] = compare(make_runs({KEY: ("higher", {**by_column(seeds), "paper": [run["oracle"] for run in seeds]})}))
    paper = arm(row, "paper")
    assert (paper.share is None) if row.gap == "none" else (paper.share.value, paper.outcome) == (1, "closes")


def test_a_share_worked_out_by_hand():
    """Gains 1, 2, 3 of 4, 5, 6: means 2 and 5, all variances and the covariance 1, t² / n = 18.5128 / 3 = 6.1709.

    The bounds solve (25 - 6.1709) r² - 2 (10 - 6.1709) r + (4 - 6.1709) = 0.
    """
    share = share_of([1, 2, 3], [4, 5, 6])
    assert share.value == 0.4
    assert share.interval == pytest.approx(sorted(np.roots([18.82906, -2 * 3.82906, -2.17094])), abs=1e-5)
    assert str(share_of([0.05, 0.01, 0.06], [0.1, 0.02, 0.12])) == "50 % (no bounds)"


@given(pairs)
def test_both_bounds_are_ratios_that_a_t_test_is_about_to_refuse(found):
    """Fieller's definition, with scipy's test in place of the quadratic equation."""
    gains, whole = map(list, zip(*found, strict=True))
    assume(np.std(whole) > 1e-3)
    assume(abs(np.mean(whole)) > 1e-3)
    share = share_of(gains, whole)
    bounds = Spread.of(whole).interval
    assert bounds is not None
    assume(min(map(abs, bounds)) > 1e-4)  # nearer, rounding decides
    assert (share.interval is None) == (bounds[0] < 0 < bounds[1])
    for bound in share.interval or ():
        rest = np.array(gains) - bound * np.array(whole)
        assume(np.std(rest) > 1e-6)
        assert stats.ttest_1samp(rest, 0).pvalue == pytest.approx(0.05, rel=1e-3)


@pytest.mark.parametrize(
    ("gains", "gap"),
    [
        ([0.1, 0.11, 0.09], "certain"),
        ([0.1, 0.02, 0.12], "likely"),  # mean 0.08, deviation 0.053, but 4.3 standard errors are 0.13
        ([0.1, -0.02, 0.01], "none"),
        ([-0.1, -0.11, -0.09], "none"),
        ([0.0, 0.0], "none"),
        ([0.1], "none"),
    ],
)
def test_a_gap_is_certain_likely_or_none(gains, gap):
    assert gap_of(Spread.of(gains)) == gap


def test_the_change_of_two_columns_is_paired_and_what_a_run_lacks_is_left_out(make_runs):
    """Seed by seed the changes are 0.2 and 0.1: their deviation is not that of either column."""
    columns = {"base": [None, 0.1], "SFT": [0.5, 0.6], "GRPO": [0.7, 0.7]}
    console = Console(width=200, record=True, force_terminal=False)
    console.print(seeds_table(make_runs({KEY: ("higher", columns)})))
    row = "| cell type annotation: accuracy ↑ |    – | 0.550 ± 0.071 | 0.700 ± 0.000 | 0.150 ± 0.071 |"
    assert row in console.export_text()
    assert math.isnan(Spread.of([0.5]).deviation)
    assert str(Spread.of([0.5])) == "0.500"


def cells(text: str, start: str) -> list[list[str]]:
    """Return the cells of the lines of both tables whose first cell starts with `start`."""
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    return [line for line in lines if line[0].startswith(start)]


def test_the_best_of_a_row_is_bold_and_a_baseline_has_its_name(table6):
    text = markdown(compare(table6), "validation")
    assert text.startswith("validation split, 3 seeds\n")
    [means, change] = cells(text, "cell type annotation")
    assert means == [
        "cell type annotation: accuracy ↑", "0.100 ± 0.000", "0.600 ± 0.100", "**0.800 ± 0.095**", "0.703 ± 0.105",
        "0.500 ± 0.095", "0.300 ± 0.000 majority", "–",
    ]  # fmt: skip
    assert change[1:] == ["oracle", "+0.200 (+0.175 to +0.225)\\*", "–", "a gap (+0.200)"]


def test_the_goal_counts_gaps_and_harm(table6):
    assert goal_lines(headline_rows(compare(table6))) == [
        "**paper** closes 50 % or more of 1 of 2 gaps; harms nothing clearly",
        "**default** closes 50 % or more of 0 of 2 gaps; harms cell type annotation: accuracy ↑",
    ]
    [line] = goal_lines(headline_rows(compare(table6, oracle="", reference="paper")))
    assert line.startswith("**default** harms cell type annotation: accuracy ↑")


def test_headlines_inside_the_distribution_come_first_and_others_not_at_all(make_runs):
    one = ("higher", {"SFT": [0.5, 0.6]})
    keys = [
        "cell_type_annotation@kidney_immune/coarse_accuracy", "cell_type_annotation/macro_f1", KEY,
        "drug_exposure_prediction/accuracy", "cell_type_annotation/dual_similarity",
    ]  # fmt: skip
    rows = headline_rows(compare(make_runs(dict.fromkeys(keys, one)), oracle=""))
    assert [row.key for row in rows] == [KEY, keys[1], keys[3], keys[0]]


def test_machines_get_every_number(table6):
    rows = compare(table6)
    told = json.loads(json.dumps(as_json(rows, "test", [0, 1, 2]), allow_nan=False))
    assert (told["format"], told["seeds"], told["split"]) == ("cellduality-arms", [0, 1, 2], "test")
    row = next(row for row in told["rows"] if row["key"] == KEY)
    assert row["gap"] == "certain"
    assert row["columns"]["SFT"] == {
        "role": "reference", "values": [0.5, 0.6, 0.7], "mean": pytest.approx(0.6), "deviation": pytest.approx(0.1),
        "interval": pytest.approx([0.6 - 0.24841, 0.6 + 0.24841], abs=1e-4),
    }  # fmt: skip
    paper = row["columns"]["paper"]
    assert paper["share_interval"][0] < paper["share"] == pytest.approx(31 / 60)
    lines = {(line["section"], line["column"]): line for line in csv.DictReader(io.StringIO(as_csv(rows)))}
    line = lines["cell_type_annotation", "paper"]
    assert [float(line[key]) for key in ("share", "share_low", "share_high")] == [
        paper["share"],
        *paper["share_interval"],
    ]
    assert [line[key] for key in ("metric", "seeds", "clear", "verdict")] == [
        "accuracy", "3", "True", "closes 52 % of the gap",
    ]  # fmt: skip
    line = lines["cell_type_annotation", "majority"]
    assert [line[key] for key in ("role", "change", "share", "verdict")] == ["baseline", "", "", ""]
    one = as_json(compare(table6[:1]), "test", [0])["rows"][0]["columns"]["paper"]
    assert (one["deviation"], one["interval"], one["change_interval"]) == (None, None, None)
