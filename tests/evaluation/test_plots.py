from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from cellduality_plugin.evaluation import page
from cellduality_plugin.evaluation.plots import INK, LINE, MUTED, PALETTE, plot_curve

CSS = (Path(page.__file__).parent / "page.css").read_text()
_ROOTS = re.findall(r":root \{(.*?)\}", CSS, flags=re.DOTALL)
SCHEMES = {name: dict(re.findall(r"--(\w+): (#\w+);", _ROOTS[place])) for place, name in enumerate(("light", "dark"))}
COLOUR_BLIND = {
    # Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def rgb(colour: str) -> np.ndarray:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    return np.array([int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)])


def linear(values: np.ndarray) -> np.ndarray:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(values: np.ndarray) -> np.ndarray:
    scaled = TO_XYZ @ np.clip(values, 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(scaled > 0.008856, np.cbrt(scaled), 7.787 * scaled + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(one: np.ndarray, other: np.ndarray) -> float:
    bright = [float(TO_XYZ[1] @ linear(colour)) for colour in (one, other)]
    return (max(bright) + 0.05) / (min(bright) + 0.05)


@pytest.mark.parametrize("eyes", COLOUR_BLIND)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_colours_stay_apart_for_colour_blind_eyes(eyes, scheme):
    own = [SCHEMES[scheme][f"s{number}"] for number in range(1, 7)]
    seen = [lab(np.array(COLOUR_BLIND[eyes]) @ linear(rgb(colour))) for colour in own]
    assert min(float(np.linalg.norm(one - other)) for one, other in combinations(seen, 2)) > 15


@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_and_marks_stand_out_from_the_page(scheme):
    own = {name: rgb(colour) for name, colour in SCHEMES[scheme].items()}
    for name, least in {"ink": 7, "muted": 4.5, "link": 4.5, "good": 4.5, "bad": 4.5}.items():
        assert contrast(own[name], own["bg"]) >= least, name
        assert contrast(own[name], own["panel"]) >= min(least, 4.5), name
    assert all(contrast(own[f"s{number}"], own["bg"]) >= 3 for number in range(1, 7))
    shades = dict(zip(SCHEMES, re.findall(r"--shade: (\d+)%", CSS), strict=True))
    shaded = (
        own["panel"] + (own["s5"] - own["panel"]) * int(shades[scheme]) / 100
    )  # where all of a label are answered so
    assert contrast(own["ink"], shaded) >= 4.5


def test_files_are_drawn_in_the_light_colours_of_the_page_and_plots_of_the_page_in_its_own():
    light = SCHEMES["light"]
    assert [light[f"s{number}"] for number in range(1, 7)] == list(PALETTE)
    assert (light["ink"], light["muted"], light["line"]) == (INK, MUTED, LINE)
    drawn = plot_curve("a", "score & <more>", [(1, 0.0), (2, 1.0)])
    assert not re.search(r"#[0-9a-f]{6}", drawn)
    assert "<title>score &amp; &lt;more&gt; by step, from 0 to 0.5</title>" in drawn
