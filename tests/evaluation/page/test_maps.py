from __future__ import annotations

import re
import sys
from itertools import combinations

import numpy as np
import pytest

from cellduality_plugin.evaluation.page.maps import NO_POINTS, NO_UMAP, Style, maps_of, styles_of, umap
from cellduality_plugin.evaluation.points import REAL, TRAINING, point_rows
from cellduality_plugin.files import read_jsonl

PAIR = "conditional_cell_generation"
ONE = {"spaces": {"a": "PCA"}, "settings": {"seed": 0}}


@pytest.fixture
def no_umap():
    """Here it is wanted."""


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(size=(40, 6)), rng.normal(size=(40, 6)) + 30])


def test_a_umap_puts_new_cells_beside_the_real_ones_that_they_are_like_and_they_move_nothing(blobs):
    real, new = umap(blobs, blobs[[0, 79]] + 0.01, seed=3)
    assert (real.shape, new.shape) == ((80, 2), (2, 2))
    nearest = [int(np.argmin(np.linalg.norm(real - point, axis=1))) for point in new]
    assert nearest[0] < 40 <= nearest[1]
    again, none = umap(blobs, blobs[:0], seed=3)
    np.testing.assert_array_equal(again, real)
    assert none.shape == (0, 2)


def test_a_map_of_a_section_shows_held_out_cells_and_every_cell_that_could_be_read(sections, answered):
    metrics = {"spaces": dict.fromkeys(sections, "PCA"), "settings": {"seed": 0}}
    found = maps_of(point_rows({"GRPO": answered}, [*sections.values()]), metrics, ["GRPO"])
    assert len(found) == sum(each.writes_cells for each in sections.values())
    own, section = found[0], sections[PAIR]
    read = [p for p in answered if (p.task, p.id) in section.rows and p.answer]
    real, train = len(section.yardstick.held_out), len(section.yardstick.train)
    assert own.name == "conditional cell generation"
    assert list(own.plots) == [f"{REAL} (n = {real})", f"GRPO (n = {len(read)})"]
    assert [plot.count("<use ") for plot in own.plots.values()] == [real, len(read)]
    assert [plot.count("<image ") for plot in own.plots.values()] == [1, 1]
    assert f"these {real + train} real cells in PCA" in own.how
    assert set(own.legend) == {"B", "NK", "T"}


@pytest.mark.parametrize(("dropped", "why"), [((), NO_UMAP), (("point", "id", "sample", "nearest"), NO_POINTS)])
def test_without_umap_and_of_older_evaluations_the_first_two_dimensions(dropped, why, run_of_two, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    rows = [row for row in read_jsonl(run_of_two / "points.jsonl") if row["section"] == PAIR]
    rows = [{key: value for key, value in row.items() if key not in dropped} for row in rows]
    [found] = maps_of(rows, {"spaces": {PAIR: ""}, "settings": {"seed": 0}}, ["GRPO"])
    assert found.how.endswith(why)
    assert len(found.plots) == 2


def row(column, condition="<b>", x=0.0):
    return {"section": "a", "column": column, "condition": condition, "x": x, "y": x}


def test_names_are_text_and_plots_share_no_id():
    [found] = maps_of([row(TRAINING), row(REAL, x=1.0), row("<i>", x=0.5)], ONE, ["<i>"])
    text = "".join(found.plots.values())
    assert "<i>" not in text
    assert "&lt;i&gt;" in text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids)) > 4


def test_without_a_cell_that_could_be_read_there_is_no_plot():
    [found] = maps_of([row(TRAINING), row(REAL)], ONE, ["GRPO"])
    assert found.plots == {}
    assert maps_of([], ONE, ["GRPO"]) == []


def test_no_two_conditions_look_alike():
    for number in (1, 6, 7, 18, 24):
        assert len(set(styles_of([f"type {place}" for place in range(number)]).values())) == number
    for kinds, states in (("ABCDEF", ("control", "drug 2 uM", "IFN")), ("ABCDEFGHIJKL", ("control", "IFN"))):
        styles = styles_of([f"{kind}, {state}" for kind in kinds for state in states])
        assert len(set(styles.values())) == len(kinds) * len(states)
        assert all(styles[f"{kind}, IFN"].colour == styles[f"{kind}, control"].colour for kind in kinds)
        assert {styles[f"{kind}, control"].shape for kind in kinds} <= {"dot", "square"}
    six = styles_of([f"{kind}, {state}" for kind in "ABCDEF" for state in ("control", "IFN")])
    assert all(six[f"{one}, IFN"].shape == six[f"{other}, IFN"].shape for one, other in combinations("ABCDEF", 2))
    assert len(set(styles_of([f"{kind}, {state}" for kind in "ABCDEFG" for state in "abc"]).values())) == 21
    assert styles_of(["a"]) == {"a": Style(1, "dot")}
