from __future__ import annotations

import re
from itertools import combinations

import numpy as np
import pytest

from cellduality_plugin.evaluation.evaluate import REAL
from cellduality_plugin.evaluation.page.maps import HOLLOW, Style, drawn, styles_of, umap, umaps

PAIR = "conditional_cell_generation"


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(size=(40, 6)), rng.normal(size=(40, 6)) + 30])


@pytest.fixture(scope="module")
def placed(blobs):
    return umap(blobs, blobs[[0, 79]] + 0.01, seed=3)


def test_a_umap_puts_new_cells_beside_the_real_ones_that_they_are_like(placed):
    real, new = placed
    assert (real.shape, new.shape) == ((80, 2), (2, 2))
    nearest = [int(np.argmin(np.linalg.norm(real - point, axis=1))) for point in new]
    assert nearest[0] < 40 <= nearest[1]


def test_a_umap_is_the_same_twice_and_new_cells_move_nothing(blobs, placed):
    again, other = umap(blobs, blobs[:5] + 0.02, seed=3)
    np.testing.assert_array_equal(again, placed[0])
    assert len(other) == 5
    assert umap(blobs, blobs[:0], seed=3)[1].shape == (0, 2)


def test_a_map_of_a_section_shows_held_out_cells_and_every_cell_that_could_be_read(sections, answered):
    found = {each.name: each for each in umaps([*sections.values()], {"GRPO": answered}, seed=0)}
    own = found["conditional cell generation"]
    section = sections[PAIR]
    read = [p for p in answered if (p.task, p.id) in section.rows and p.answer]
    assert list(own.plots) == [f"{REAL} (n = {len(section.yardstick.held_out)})", f"GRPO (n = {len(read)})"]
    counts = [len(re.findall(r"M[-\d.]+ [-\d.]+h0", plot)) for plot in own.plots.values()]
    grey = len(section.yardstick.held_out) + len(section.yardstick.train)
    assert counts[0] == grey + len(section.yardstick.held_out)
    assert counts[1] >= len(read)  # a ring is drawn twice
    assert f"all {grey} real cells" in own.how
    assert set(own.legend) == {"B", "NK", "T"}
    assert len(found) == sum(each.writes_cells for each in sections.values())


def test_no_two_conditions_look_alike():
    for number in (1, 6, 7, 18, 24):
        styles = styles_of([f"type {place}" for place in range(number)])
        assert len(set(styles.values())) == number
    states = styles_of([f"{kind}, {state}" for kind in "ABCDEF" for state in ("control", "drug 2 uM", "IFN")])
    assert len(set(states.values())) == 18
    assert all(states[f"{one}, IFN"].shape == states[f"{other}, IFN"].shape for one, other in combinations("ABCDEF", 2))
    assert states["A, IFN"].colour == states["A, control"].colour


def test_more_types_than_colours_still_have_a_style_each():
    names = [f"{kind}, {state}" for kind in "ABCDEFGHIJKL" for state in ("control", "IFN")]
    styles = styles_of(names)
    assert len(set(styles.values())) == 24
    assert all(styles[f"{kind}, IFN"].colour == styles[f"{kind}, control"].colour for kind in "ABCDEFGHIJKL")
    assert {styles[name].shape in HOLLOW for name in names if name.endswith("IFN")} == {True}
    assert {styles[name].shape in HOLLOW for name in names if name.endswith("control")} == {False}
    three = [f"{kind}, {state}" for kind in "ABCDEFG" for state in ("a", "b", "c")]
    assert len(set(styles_of(three).values())) == 21
    assert styles_of(["a"]) == {"a": Style(1, "dot")}


def test_names_of_conditions_are_text():
    shown = drawn("x", {REAL: {"<b>": [(0.0, 0.0)]}, "GRPO": {"<b>": [(1.0, 1.0)]}}, ["GRPO"], [(0.5, 0.5)], "")
    assert all("<b>" not in plot and "&lt;b&gt;" in plot for plot in shown.plots.values())


def test_grey_cells_are_drawn_once():
    cells = {"B": [(1.0, 1.0)]}
    shown = drawn("a@ood", {REAL: cells, "SFT": cells, "GRPO": cells}, ["SFT", "GRPO"], [(0.5, 0.5)], "how")
    text = "".join(shown.plots.values())
    assert (text.count('id="behind-a-ood"'), text.count('href="#behind-a-ood"')) == (1, 2)


def test_without_a_cell_that_could_be_read_there_is_no_plot():
    assert drawn("a", {REAL: {"B": [(1.0, 1.0)]}, "GRPO": {}}, ["GRPO"], [], "how").plots == {}
