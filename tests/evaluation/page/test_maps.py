from __future__ import annotations

import re
from itertools import combinations

import numpy as np

from cellduality_plugin.evaluation.generated import REAL, TRAINING, Style, maps_of, point_rows, styles_of, tsne

ONE = {"spaces": {"a": "PCA"}, "settings": {"seed": 0}}


def test_a_map_has_a_place_for_everyone_however_few_and_a_seed_fixes_it():
    points = np.random.default_rng(0).normal(size=(40, 6))
    for count, dimensions in [(0, 6), (1, 6), (3, 6), (5, 6), (40, 1), (40, 6)]:
        plane = tsne(points[:count, :dimensions], seed=3)
        assert plane.shape == (count, 2)
        assert np.isfinite(plane).all()
    np.testing.assert_array_equal(tsne(points, seed=3), plane)


def test_a_map_of_a_section_shows_held_out_cells_and_every_cell_that_could_be_read(sections, answered):
    metrics = {"spaces": dict.fromkeys(sections, "PCA"), "settings": {"seed": 0}}
    found = maps_of(point_rows({"GRPO": answered}, [*sections.values()]), metrics, ["GRPO"])
    assert len(found) == sum(each.writes_cells for each in sections.values())
    section = sections["conditional_cell_generation"]
    read = sum((p.task, p.id) in section.rows and p.answer is not None for p in answered)
    real = len(section.reference.held_out)
    assert list(found[0]["plots"]) == [f"{REAL} (n = {real})", f"GRPO (n = {read})"]
    assert [plot.count("<use ") for plot in found[0]["plots"].values()] == [real, read]
    assert [plot.count("<image ") for plot in found[0]["plots"].values()] == [1, 1]


def row(column, condition="<b>", x=0.0):
    """A point as older evaluations wrote it."""
    return {"section": "a", "column": column, "condition": condition, "x": x, "y": x}


def test_names_are_text_plots_share_no_id_and_without_a_cell_that_could_be_read_there_is_none():
    [found] = maps_of([row(TRAINING), row(REAL, x=1.0), row("<i>", x=0.5)], ONE, ["<i>"])
    text = "".join(found["plots"].values())
    assert ("<i>" in text, "&lt;i&gt;" in text) == (False, True)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids)) > 4
    assert maps_of([row(TRAINING), row(REAL)], ONE, ["GRPO"])[0]["plots"] == {}
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
