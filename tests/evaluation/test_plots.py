from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from cellduality_plugin.evaluation import page
from cellduality_plugin.evaluation.curves import band, panels, write_figure
from cellduality_plugin.evaluation.plots import INK, LINE, MUTED, PALETTE, plot_curve
from tests.refused import refused

ANNOTATION, GENERATION = "cell_type_annotation", "conditional_cell_generation"
EXPOSURE = "drug_exposure_prediction"


def curves(offset=0.0, gold=True, tasks=(ANNOTATION, EXPOSURE)):
    """What a run logs in six steps: sums over rollouts, and the share of those that a task has."""
    steps, found = range(1, 7), {}
    for task in tasks:
        found[f"dual_reward/{task}"] = [(step, 0.25 * (step / 10 + offset)) for step in steps]
        constant = {"dual_share": 0.25} | ({"dual_truth": 0.1, "dual_truth_share": 0.2} if gold else {})
        found |= {f"{name}/{task}": [(step, value) for step in steps] for name, value in constant.items()}
    return found


def logged(path, found):
    lines = []
    for points in zip(*found.values(), strict=True):
        values = {name: value for name, (_, value) in zip(found, points, strict=True)}
        lines.append(f"Global step {points[0][0]}: {values}")
    path.write_text("\n".join(lines))
    return path


def test_a_panel_is_the_mean_reward_of_a_rollout_of_the_task_and_its_truth_and_of_several_runs_with_deviation():
    found = panels([curves()], window=1)
    assert [(panel.family, panel.task) for panel in found] == [("identity", ANNOTATION), ("dynamics", EXPOSURE)]
    assert found[0].reward.mean == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert (found[0].truth.mean, found[0].truth_is) == (pytest.approx([0.5] * 6), "accuracy")
    assert panels([curves(tasks=(GENERATION,))])[0].truth_is == "RWJS to the true cell"
    assert panels([curves(), curves(gold=False)])[0].truth is None
    [panel, _] = panels([curves(0.0), curves(0.2), curves(0.4)], window=3)
    assert panel.reward.runs == 3
    assert panel.reward.mean == pytest.approx([0.3, 0.35, 0.4, 0.5, 0.6, 0.7])
    assert panel.reward.spread == pytest.approx([0.2] * 6)
    mine = curves(tasks=("my_pair", EXPOSURE, ANNOTATION))
    assert [panel.family for panel in panels([mine])] == ["identity", "dynamics", "other pairs"]
    assert panels([mine])[-1].truth_is == "ground truth"
    assert [panel.task for panel in panels([mine, curves(tasks=(EXPOSURE,))])] == [EXPOSURE]
    assert panels([{"reward": [(1, 0.5)]}]) == panels([]) == []


def test_what_was_not_logged_or_is_not_finite_is_no_part_of_the_mean():
    found = band([[(1, 0.0), (2, 0.0), (5, 1.0)], [(1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0), (5, 1.0)]], window=2)
    assert found.steps.tolist() == [1, 2, 3, 5]
    assert found.mean.tolist() == [0.5, 0.5, 0.5, 1.0]
    broken = curves()
    broken[f"dual_reward/{ANNOTATION}"][2] = (3, float("nan"))
    assert np.isfinite(panels([broken], window=1)[0].reward.mean).all()


def test_the_figure_is_the_same_file_twice_and_says_what_it_shows(tmp_path):
    runs = [logged(tmp_path / f"{seed}.log", curves(seed / 10)) for seed in (1, 2)]
    for ending in ("svg", "png", "pdf"):
        images = [tmp_path / f"{name}.{ending}" for name in ("one", "two")]
        for image in images:
            assert len(write_figure(runs, image, window=4)) == 2
        assert images[0].read_bytes() == images[1].read_bytes()
    said = {*re.findall(r"<text[^>]*>([^<]*)</text>", (tmp_path / "one.svg").read_text())}
    assert {"identity tasks", "dynamics tasks", "cell type annotation", "ground truth: accuracy"} <= said
    assert "lines: moving average over 4 steps; band: standard deviation over 2 runs" in said


def test_what_cannot_be_drawn_is_told(tmp_path):
    log = logged(tmp_path / "a.log", {"reward": [(1, 0.5)]})
    for source, name, code in (
        (log, "a.svg", "no-curves"),
        (log, "a.docx", "wrong-format"),
        (tmp_path / "gone.log", "a.svg", "no-curves"),
    ):
        with refused(code):
            write_figure([source], tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.log"]


def test_files_are_drawn_in_the_light_colours_of_the_page_and_plots_of_the_page_in_its_own():
    light = dict(
        re.findall(r"--(\w+): (#\w+);", (Path(page.__file__).parent / "page.css").read_text().partition("}")[0])
    )
    assert [light[f"s{number}"] for number in range(1, 7)] == list(PALETTE)
    assert (light["ink"], light["muted"], light["line"]) == (INK, MUTED, LINE)
    drawn = plot_curve("a", "score & <more>", [(1, 0.0), (2, 1.0)])
    assert not re.search(r"#[0-9a-f]{6}", drawn)
    assert "<title>score &amp; &lt;more&gt; by step, from 0 to 0.5</title>" in drawn


TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
EYES = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "usual": np.eye(3),
}


def lab(linear):
    scaled = TO_XYZ @ np.clip(linear, 0, 1) / [0.9505, 1.0, 1.089]
    x, y, z = np.where(scaled > 0.008856, np.cbrt(scaled), 7.787 * scaled + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_and_colours_stay_apart_for_colour_blind_eyes(scheme):
    css = (Path(page.__file__).parent / "page.css").read_text()
    root = re.findall(r":root \{(.*?)\}", css, flags=re.DOTALL)[scheme == "dark"]
    found = {name: np.array([*bytes.fromhex(code)]) / 255 for name, code in re.findall(r"--(\w+): #(\w+);", root)}
    linear = {name: np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) for name, c in found.items()}
    bright = {name: TO_XYZ[1] @ c + 0.05 for name, c in linear.items()}
    for name, least in {"ink": 7, "muted": 4.5, "link": 4.5, "good": 4.5, "bad": 4.5, "s1": 3, "s4": 3}.items():
        assert max(bright[name] / bright["bg"], bright["bg"] / bright[name]) >= least, name
    for eyes in EYES.values():
        seen = [lab(np.array(eyes) @ linear[f"s{number}"]) for number in range(1, 7)]
        assert min(np.linalg.norm(one - other) for one, other in combinations(seen, 2)) > 15
