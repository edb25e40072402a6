"""Runs over seeds and the arms of an experiment, from made-up runs: one metric a task, one value a seed."""

from __future__ import annotations

import csv
import io
import json
import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from cellduality_plugin.evaluation.compare import Spread, arms_of, best_of, compare, gap_of, judge, share_of
from cellduality_plugin.evaluation.compare_tables import (
    as_csv,
    as_json,
    as_markdown,
    headline_rows,
    save_plot,
    seeds_table,
)
from tests.refused import refused

ANNOTATION, FAR = "cell_type_annotation", "cell_type_annotation@kidney_immune"
KEY, ERROR = f"{ANNOTATION}/accuracy", "perturbation_response_generation/shift_error"
EXPOSURE = "drug_exposure_prediction/accuracy"
KINDS = {"majority": "baseline", "real cells": "real"}

value = st.floats(0, 1).map(lambda number: round(number, 4))
seed = st.fixed_dictionaries({"SFT": value, "oracle": value, "paper": value, "majority": value})
gain = st.floats(-1, 1, allow_nan=False).map(lambda number: round(number, 6))
pairs = st.lists(st.tuples(gain, gain), min_size=2, max_size=8)


def make_runs(metrics):
    """Return the runs of {metric: (better, {column: value by seed})}."""
    names = list(dict.fromkeys(name for _, columns in metrics.values() for name in columns))

    def column(name, seed):
        own = {key: (better, columns[name]) for key, (better, columns) in metrics.items() if name in columns}
        found = {key: {"value": values[seed], "better": better} for key, (better, values) in own.items()}
        return {"kind": KINDS.get(name, "checkpoint"), "metrics": found}

    seeds = range(len(next(iter(next(iter(metrics.values()))[1].values()))))
    settings = [{"neighbours": [10], "seed": seed} for seed in seeds]
    return [{"split": "test", "settings": s, "columns": {n: column(n, s["seed"]) for n in names}} for s in settings]


@pytest.fixture
def table6():
    """Three seeds of three tasks: a gap that one arm half closes and one widens, no gap, a gap in an error."""
    names = ("base", "SFT", "oracle", "paper", "default")
    accuracy = [0.1] * 3, [0.5, 0.6, 0.7], [0.7, 0.81, 0.89], [0.6, 0.7, 0.81], [0.4, 0.51, 0.59]
    exposure = [0.0] * 3, [1.0] * 3, [1.0] * 3, [1.0] * 3, [1.0, 1.0, 0.9]
    error = [None] * 3, [0.5, 0.6, 0.7], [0.3, 0.39, 0.51], [0.4, 0.51, 0.6], [0.4, 0.5, 0.61]
    columns = [dict(zip(names, values, strict=True)) for values in (accuracy, exposure, error)]
    columns[0]["majority"], columns[1]["majority"], columns[2]["real cells"] = [0.3] * 3, [0.5] * 3, [0.1] * 3
    return make_runs({KEY: ("higher", columns[0]), EXPOSURE: ("higher", columns[1]), ERROR: ("lower", columns[2])})


def row_of(runs, key=KEY, **columns):
    return next(row for row in compare(runs, **columns) if row["key"] == key)


@pytest.mark.parametrize(
    ("key", "name", "share", "outcome", "verdict"),
    [
        # The oracle gains 0.2, 0.21, 0.19; the arm 0.1, 0.1, 0.11.
        (KEY, "paper", 31 / 60, "closes", "closes 52 % of the gap"),
        # The oracle's error falls by 0.2, 0.21, 0.19; the arm's by 0.1, 0.09, 0.1.
        (ERROR, "paper", 29 / 60, "falls short", "closes 48 % of the gap"),
        (KEY, "default", -1 / 2, "harms", "harms (-0.100)"),
        (EXPOSURE, "paper", None, "no gap", "no gap to close"),
        (EXPOSURE, "oracle", None, "no gap", "no gap (0.000)"),
        (KEY, "oracle", 1, "closes", "a gap (+0.200)"),
    ],
)
def test_arms_by_hand(key, name, share, outcome, verdict, table6):
    found = row_of(table6, key)["columns"][name]
    assert found["share"] == (share and pytest.approx(share))
    assert (found["outcome"], found["verdict"]) == (outcome, verdict)


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
    assert judge(Spread.of(gains), gap, share, "")[0] == outcome


def test_a_gap_is_certain_likely_or_none():
    # Of the second the mean is 0.08, the deviation 0.053, but 4.3 standard errors are 0.13.
    for gains, gap in {(0.1, 0.11, 0.09): "certain", (0.1, 0.02, 0.12): "likely", (0.1, -0.02): "none"}.items():
        assert gap_of(Spread.of(gains)) == gap


def test_without_an_oracle_there_are_no_shares_and_one_seed_says_nothing(table6):
    one = [arm for row in compare(table6[:1]) for arm in arms_of(row).values()]
    assert {arm["verdict"] for arm in one} == {"one seed says nothing"}
    assert (one[0]["deviation"], one[0]["interval"], one[0]["change_interval"]) == (None, None, None)
    for run in table6:
        del run["columns"]["oracle"]
    rows = compare(table6, oracle="")
    assert {row["gap"] for row in rows} == {arm["share"] for row in rows for arm in arms_of(row).values()} == {None}
    assert rows[0]["columns"]["paper"]["verdict"] == "gains (+0.103)"


def test_a_metric_that_a_seed_lacks_is_left_out_for_that_column_alone(table6):
    table6[1]["columns"]["paper"]["metrics"][KEY]["value"] = None
    row = row_of(table6)
    assert (row["columns"]["paper"]["values"], [*arms_of(row)]) == ([], ["oracle", "default"])
    for name in ("oracle", "SFT"):
        table6[1]["columns"][name]["metrics"].pop(KEY, None)
        rows = {row["key"]: row for row in compare(table6)}
        assert (rows[KEY]["gap"] is None) if name == "oracle" else (KEY not in rows)
    no_direction = make_runs({"a/spread": ("like real cells", {"SFT": [1.0, 2.0], "oracle": [1.0, 1.0]})})
    assert compare(no_direction) == []


def test_runs_of_different_kinds_are_not_mixed_and_a_column_that_is_not_there_is_refused(table6):
    [run] = make_runs({KEY: ("higher", {"SFT": [0.5]})})
    [other] = make_runs({KEY: ("higher", {"GRPO": [0.5]})})
    for runs in ([], [run, other], [run, {**run, "split": "validation"}]):
        for over in (compare, seeds_table):
            with refused("mixed-runs"):
                over(runs)
    for name, column in (("reference", "sft"), ("oracle", "gold")):
        with refused("unknown-column") as error:
            compare(table6, **{name: column})
        assert error.value.where == f"--{name}"


def by_column(seeds, sign=1):
    return {name: [sign * run[name] for run in seeds] for name in ("SFT", "oracle", "paper", "majority")}


@given(seeds=st.lists(seed, min_size=2, max_size=6), random=st.randoms(use_true_random=False))
def test_neither_the_order_of_the_seeds_nor_the_direction_changes_a_verdict(seeds, random):
    [up] = compare(make_runs({KEY: ("higher", by_column(seeds))}))
    [down] = compare(make_runs({KEY: ("lower", by_column(seeds, -1))}))
    random.shuffle(seeds)
    [mixed] = compare(make_runs({KEY: ("higher", by_column(seeds))}))
    assert (up["gap"], best_of(up)) == (down["gap"], best_of(down)) == (mixed["gap"], best_of(mixed))
    for one, turned, other in zip(*(arms_of(row).values() for row in (up, down, mixed)), strict=True):
        assert {**one, "values": sorted(one["values"])} == {**other, "values": sorted(other["values"])}
        assert (one["share"], one["outcome"]) == (turned["share"], turned["outcome"])
        assert one["change_mean"] == -turned["change_mean"]


@given(pairs)
def test_both_bounds_are_ratios_that_a_t_test_is_about_to_refuse(found):
    """Fieller's definition, with scipy's test in place of the quadratic equation."""
    gains, whole = map(list, zip(*found, strict=True))
    assume(np.std(whole) > 1e-3)
    assume(abs(np.mean(whole)) > 1e-3)
    (_, interval), bounds = share_of(gains, whole), Spread.of(whole).interval
    assume(min(map(abs, bounds)) > 1e-4)  # nearer, rounding decides
    assert (interval is None) == (bounds[0] < 0 < bounds[1])
    for bound in interval or ():
        rest = np.array(gains) - bound * np.array(whole)
        assume(np.std(rest) > 1e-6)
        assert stats.ttest_1samp(rest, 0).pvalue == pytest.approx(0.05, rel=1e-3)


def test_the_tables_mark_the_best_name_the_baseline_and_count_gaps_and_harm(table6):
    text = as_markdown(compare(table6), "validation")
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines()]
    [means, change] = [line for line in lines if line[0].startswith("cell type annotation")]
    assert lines[0] == ["validation split, 3 seeds"]
    assert means == [
        "cell type annotation: accuracy ↑", "0.100 ± 0.000", "0.600 ± 0.100", "**0.800 ± 0.095**", "0.703 ± 0.105",
        "0.500 ± 0.095", "0.300 ± 0.000 majority", "–",
    ]  # fmt: skip
    assert change[1:] == ["oracle", "+0.200 (+0.175 to +0.225)\\*", "–", "a gap (+0.200)"]
    assert "- **paper** closes 50 % or more of 1 of 2 gaps; harms nothing clearly\n" in text
    assert "- **default** closes 50 % or more of 0 of 2 gaps; harms cell type annotation: accuracy ↑\n" in text
    # Seed by seed the changes are 0.2 and 0.1: their deviation is not that of either column.
    columns = {"base": [None, 0.1], "SFT": [0.5, 0.6], "GRPO": [0.7, 0.7]}
    line = "| cell type annotation: accuracy ↑ |    – | 0.550 ± 0.071 | 0.700 ± 0.000 | 0.150 ± 0.071 |"
    assert line in seeds_table(make_runs({KEY: ("higher", columns)}))


def test_headlines_inside_the_distribution_come_first_and_others_not_at_all():
    names = [f"{FAR}/coarse_accuracy", f"{ANNOTATION}/macro_f1", KEY, EXPOSURE, f"{ANNOTATION}/dual_similarity"]
    rows = headline_rows(compare(make_runs(dict.fromkeys(names, ("higher", {"SFT": [0.5, 0.6]}))), oracle=""))
    assert [row["key"] for row in rows] == [KEY, names[1], EXPOSURE, names[0]]


def test_machines_get_every_number(table6):
    rows = compare(table6)
    content = json.loads(json.dumps(as_json(rows, "test", [0, 1, 2]), allow_nan=False))
    columns = next(row for row in content["rows"] if row["key"] == KEY)["columns"]
    assert columns["SFT"]["interval"] == pytest.approx([0.6 - 0.24841, 0.6 + 0.24841], abs=1e-4)
    lines = {(line["section"], line["column"]): line for line in csv.DictReader(io.StringIO(as_csv(rows)))}
    paper, majority = (lines[ANNOTATION, name] for name in ("paper", "majority"))
    shares = [columns["paper"]["share"], *columns["paper"]["share_interval"]]
    assert [float(paper[key]) for key in ("share", "share_low", "share_high")] == shares
    said = [paper[key] for key in ("metric", "seeds", "clear", "verdict")]
    assert said == ["accuracy", "3", "True", "closes 52 % of the gap"]
    assert [majority[key] for key in ("role", "change", "share", "verdict")] == ["baseline", "", "", ""]


def test_a_panel_a_row_with_every_arm_and_no_base_model_in_the_same_bytes(table6, tmp_path):
    paths = [tmp_path / name for name in ("a.svg", "b.svg", "a.png")]
    save_plot(headline_rows(compare(table6)), *paths[::2])
    save_plot(headline_rows(compare(table6)), paths[1])
    svg, again, png = (path.read_bytes() for path in paths)
    assert (svg, png[:4]) == (again, b"\x89PNG")
    assert all(shown in svg for shown in (b"cell type annotation: accuracy", b"shift error", b"SFT", b"oracle"))
    assert b"base<" not in svg
    assert len(re.findall(rb'id="axes_\d+"', svg)) == 4  # two in a row, the last place empty
