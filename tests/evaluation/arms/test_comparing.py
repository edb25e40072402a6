from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.arms.comparing import HEADLINES, compare, headline_of, outcome_of
from cellduality_plugin.evaluation.arms.shares import Share
from cellduality_plugin.evaluation.seeds import Spread
from cellduality_plugin.tasks import TASKS

KEY = "cell_type_annotation/accuracy"

value = st.floats(0, 1).map(lambda number: round(number, 4))
seed = st.fixed_dictionaries({"SFT": value, "oracle": value, "paper": value, "majority": value})


@pytest.fixture
def rows(table6):
    return {row.key: row for row in compare(table6)}


def arm(row, name):
    return next(arm for arm in row.arms if arm.name == name)


def test_a_share_by_hand(rows):
    """The oracle gains 0.2, 0.21, 0.19; the arm 0.1, 0.1, 0.11: 31 / 60."""
    row = rows[KEY]
    assert (row.gap, row.headline) == ("certain", 1)
    paper = arm(row, "paper")
    assert paper.share is not None
    assert paper.share.value == pytest.approx(31 / 60)
    assert paper.change.mean == pytest.approx(0.31 / 3)
    assert paper.clear
    assert (paper.outcome, paper.verdict) == ("closes", "closes 52 % of the gap")


def test_lower_is_better_where_it_is(rows):
    """The oracle's error falls by 0.2, 0.21, 0.19; the arm's by 0.1, 0.09, 0.1: 29 / 60 is no half."""
    paper = arm(rows["perturbation_response_generation/shift_error"], "paper")
    assert paper.share is not None
    assert paper.share.value == pytest.approx(29 / 60)
    assert paper.change.mean < 0 < paper.gain.mean
    assert (paper.outcome, paper.verdict) == ("falls short", "closes 48 % of the gap")


def test_an_arm_that_loses_harms(rows):
    found = arm(rows[KEY], "default")
    assert (found.outcome, found.verdict) == ("harms", "harms (-0.100)")


def test_without_a_gap_there_is_nothing_to_close(rows):
    row = rows["drug_exposure_prediction/accuracy"]
    assert row.gap == "none"
    assert arm(row, "oracle").verdict == "no gap (0.000)"
    paper = arm(row, "paper")
    assert (paper.share, paper.outcome, paper.verdict, paper.clear) == (None, "no gap", "no gap to close", False)


def test_the_best_of_a_row_may_be_a_baseline_but_never_real_cells(rows, make_runs):
    assert rows[KEY].best() == {"oracle"}
    assert rows["perturbation_response_generation/shift_error"].best() == {"oracle"}
    assert rows["drug_exposure_prediction/accuracy"].best() == {"SFT", "oracle", "paper"}
    [row] = compare(make_runs({KEY: ("higher", {"SFT": [0.5], "majority": [0.6], "real cells": [0.9]})}), oracle="")
    assert row.best() == {"majority"}


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
    assert outcome_of(Spread.of(gains), gap, None if share is None else Share(share, None)) == outcome


def test_without_an_oracle_there_are_no_shares(table6):
    for run in table6:
        del run["columns"]["oracle"]
    rows = compare(table6, oracle="")
    assert {row.gap for row in rows} == {None}
    assert {arm.share for row in rows for arm in row.arms} == {None}
    assert arm(rows[0], "paper").verdict == "gains (+0.103)"


def test_one_seed_says_nothing(table6):
    for row in compare(table6[:1]):
        assert {arm.verdict for arm in row.arms} == {"one seed says nothing"}


def test_a_metric_that_a_seed_lacks_is_left_out_for_that_column_alone(table6):
    table6[1]["columns"]["paper"]["metrics"][KEY]["value"] = None
    row = next(row for row in compare(table6) if row.key == KEY)
    assert row.values["paper"] == ()
    assert [arm.name for arm in row.arms] == ["oracle", "default"]
    for name in ("oracle", "SFT"):
        table6[1]["columns"][name]["metrics"].pop(KEY, None)
        rows = {row.key: row for row in compare(table6)}
        assert (rows[KEY].gap is None) if name == "oracle" else (KEY not in rows)


def test_a_metric_without_a_direction_is_no_row(make_runs):
    runs = make_runs({"a/spread": ("like real cells", {"SFT": [1.0, 2.0], "oracle": [1.0, 1.0]})})
    assert compare(runs) == []


@pytest.mark.parametrize(("columns", "flag"), [({"reference": "sft"}, "--reference"), ({"oracle": "gold"}, "--oracle")])
def test_a_column_that_is_not_there_is_told_with_those_that_are(columns, flag, table6):
    with pytest.raises(CellDualityError, match="choose among base, SFT, oracle, paper, default") as told:
        compare(table6, **columns)
    assert flag in str(told.value)


def test_no_runs_are_refused():
    with pytest.raises(CellDualityError, match="not of one kind"):
        compare([])


def by_column(seeds, sign=1):
    return {name: [sign * run[name] for run in seeds] for name in ("SFT", "oracle", "paper", "majority")}


@given(seeds=st.lists(seed, min_size=2, max_size=6), random=st.randoms(use_true_random=False))
def test_the_order_of_the_seeds_changes_nothing(seeds, random, make_runs):
    mixed = seeds[:]
    random.shuffle(mixed)
    [first], [second] = (compare(make_runs({KEY: ("higher", by_column(found))})) for found in (seeds, mixed))
    assert repr((first.arms, first.gap, first.best())) == repr((second.arms, second.gap, second.best()))


@given(seeds=st.lists(seed, min_size=2, max_size=6))
def test_errors_are_judged_as_the_same_values_with_the_other_sign(seeds, make_runs):
    [up] = compare(make_runs({KEY: ("higher", by_column(seeds))}))
    [down] = compare(make_runs({KEY: ("lower", by_column(seeds, -1))}))
    assert (up.gap, up.best()) == (down.gap, down.best())
    for first, second in zip(up.arms, down.arms, strict=True):
        assert (first.gain, first.share, first.outcome, first.clear) == (
            second.gain, second.share, second.outcome, second.clear,
        )  # fmt: skip
        assert first.change.mean == -second.change.mean


@given(seeds=st.lists(seed, min_size=2, max_size=6))
def test_an_arm_that_is_the_oracle_closes_all_or_meets_no_gap(seeds, make_runs):
    runs = make_runs({KEY: ("higher", {**by_column(seeds), "paper": [run["oracle"] for run in seeds]})})
    [row] = compare(runs)
    paper = arm(row, "paper")
    if row.gap == "none":
        assert paper.share is None
    else:
        assert paper.share is not None
        assert paper.share.value == 1
        assert paper.outcome == "closes"


def test_every_task_has_headlines_and_no_other():
    assert HEADLINES.keys() == TASKS.keys()
    assert headline_of("cell_type_annotation/dual_similarity") == 0
