"""Real and generated cells on a plane, coloured by what they are or were asked to be."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.evaluation.evaluate import REAL
from cellduality_plugin.evaluation.plots import PALETTE
from cellduality_plugin.evaluation.predictions import Prediction
from cellduality_plugin.evaluation.sections import Section
from cellduality_plugin.evaluation.tables import section_title
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.perturbations import CONTROL

SHAPES = ("dot", "ring", "square", "frame")
HOLLOW = ("ring", "frame")
NEIGHBOURS, MIN_DIST = 15, 0.3
_WIDTH, _HEIGHT = 300, 260
"""Of a plot, in its own units; both axes are stretched to it, since neither has a unit."""

Point: TypeAlias = tuple[float, float]
Columns: TypeAlias = Mapping[str, Mapping[str, Sequence[Point]]]
"""Points by column (real cells, then checkpoints) and condition."""


@dataclass(frozen=True)
class Style:
    """How a condition is drawn: in one of the page's colours (from 1), and in a shape."""

    colour: int
    shape: str


@dataclass(frozen=True)
class Map:
    """The plots of one section: real cells, then each checkpoint's before them in grey."""

    name: str
    how: str
    legend: Mapping[str, str] = field(default_factory=dict)
    plots: Mapping[str, str] = field(default_factory=dict)


def styles_of(conditions: Sequence[str]) -> dict[str, Style]:
    """Return how each condition is drawn, so that no two look alike while there are at most 24.

    Where conditions are ``type, state``, the colour is the type's and the shape the state's; of more types than
    colours the further ones are square. Control cells are filled, those of the second state hollow.

    Examples
    --------
    >>> styles_of(["B, control", "B, IFN", "T, control"])["T, control"]
    Style(colour=2, shape='dot')
    >>> [style.shape for style in styles_of([str(number) for number in range(7)]).values()][5:]
    ['dot', 'ring']
    """
    split = [condition.rpartition(", ") for condition in conditions]
    kinds = sorted({kind for kind, _, _ in split})
    states = sorted({state for _, _, state in split}, key=lambda state: (state != CONTROL, state))
    rounds = math.ceil(len(kinds) / len(PALETTE))
    if all(kinds) and rounds * len(states) <= len(SHAPES):
        return {
            condition: Style(
                kinds.index(kind) % len(PALETTE) + 1,
                SHAPES[kinds.index(kind) // len(PALETTE) * len(states) + states.index(state)],
            )
            for condition, (kind, _, state) in zip(conditions, split, strict=True)
        }
    return {
        condition: Style(place % len(PALETTE) + 1, SHAPES[place // len(PALETTE) % len(SHAPES)])
        for place, condition in enumerate(conditions)
    }


def maps_of_points(path: Path, checkpoints: Sequence[str], why: str) -> list[Map]:
    """Return maps of the two dimensions that the evaluation wrote: the first two of its space.

    Parameters
    ----------
    why
        What keeps the page from a UMAP.
    """
    sections: dict[str, dict[str, dict[str, list[Point]]]] = {}
    for row in read_jsonl(path):
        columns = sections.setdefault(row["section"], {})
        columns.setdefault(row["column"], {}).setdefault(row["condition"], []).append((row["x"], row["y"]))
    how = f"In grey the real held-out cells. The first two dimensions of the space of the distances. {why}"
    found = []
    for key, columns in sorted(sections.items()):
        behind = [point for cells in columns.get(REAL, {}).values() for point in cells]
        found.append(drawn(key, columns, checkpoints, behind, how))
    return found


def umaps(sections: Sequence[Section], predictions: Mapping[str, Sequence[Prediction]], seed: int) -> list[Map]:
    """Return a UMAP of each section whose answers are cells: fitted on real cells, generated ones placed on it.

    Raises
    ------
    ImportError
        If umap-learn is not installed.
    """
    return [_placed(section, predictions, seed) for section in sections if section.writes_cells]


def _placed(section: Section, predictions: Mapping[str, Sequence[Prediction]], seed: int) -> Map:
    yardstick, real = section.yardstick, section.yardstick.held_out
    fitted = np.concatenate([yardstick.embedding(yardstick.train.genes), yardstick.points])
    made = {name: cells_of(section, own) for name, own in predictions.items()}
    new = np.concatenate([yardstick.embedding([genes for _, genes in cells]) for cells in made.values()])
    on_plane, new_on_plane = umap(fitted, new, seed)
    columns = {REAL: _by_condition(real.names, on_plane[len(yardstick.train) :])}
    start = 0
    for name, cells in made.items():
        columns[name] = _by_condition([kind for kind, _ in cells], new_on_plane[start : start + len(cells)])
        start += len(cells)
    how = (
        f"In grey all {len(fitted)} real cells, of training and of this split. UMAP ({NEIGHBOURS} neighbours, minimum "
        f"distance {MIN_DIST}, seed {seed}), fitted on these real cells in {yardstick.embedding.name}; generated cells "
        "are placed on it afterwards and move nothing: those unlike any real cell come to lie at a rim."
    )
    behind = [(float(x), float(y)) for x, y in on_plane]
    return drawn(section.key, columns, list(predictions), behind, how)


def cells_of(section: Section, predictions: Sequence[Prediction]) -> list[tuple[str, tuple[str, ...]]]:
    """Return (what it was asked to be, its genes) of each generated cell of a section that could be read."""
    names = section.yardstick.held_out.name_of
    return [
        (names.get(p.id, str(p.unknown)), tuple(p.answer))
        for p in predictions
        if (p.task, p.id) in section.rows and p.answer and not isinstance(p.answer, str)
    ]


def umap(
    real: NDArray[np.float64], new: NDArray[np.float64], seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the planes' coordinates of ``real`` points, to which the map is fitted, and of ``new`` ones.

    The seed fixes both; one thread, since several would not agree with themselves.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportWarning)  # says that TensorFlow, for which there is no use, is missing
        from umap import UMAP

    neighbours = min(NEIGHBOURS, len(real) - 1)
    start = "spectral" if len(real) > 10 else "random"  # a handful of cells has no spectrum to start from
    fit = UMAP(
        n_neighbors=neighbours, min_dist=MIN_DIST, init=start, random_state=seed, transform_seed=seed, n_jobs=1
    ).fit(real)
    placed = fit.transform(new) if len(new) else np.empty((0, 2))
    return np.asarray(fit.embedding_, dtype=float), np.asarray(placed, dtype=float)


def _by_condition(names: Sequence[str], points: NDArray[np.float64]) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    for name, (x, y) in zip(names, points, strict=True):
        found.setdefault(name, []).append((float(x), float(y)))
    return dict(sorted(found.items()))


def drawn(key: str, columns: Columns, checkpoints: Sequence[str], behind: Sequence[Point], how: str) -> Map:
    """Return the plots of a section; none if no checkpoint wrote a cell that could be read.

    Parameters
    ----------
    behind
        Real cells, drawn first and in grey.
    how
        What the plane is.
    """
    shown = [name for name in checkpoints if columns.get(name)]
    if not shown:
        return Map(section_title(key), how)
    styles = styles_of(sorted({condition for points in columns.values() for condition in points}))
    every = np.array([*behind, *(point for points in columns.values() for cells in points.values() for point in cells)])
    low, high = every.min(axis=0), every.max(axis=0)
    scale = np.array([_WIDTH, _HEIGHT]) / np.maximum(high - low, 1e-9)

    def to_plot(cells: Sequence[Point]) -> list[Point]:
        return [((x - low[0]) * scale[0], (high[1] - y) * scale[1]) for x, y in cells]

    grey = re.sub(r"[^a-z]+", "-", f"behind-{key}")
    plots: dict[str, str] = {}
    for name in [REAL, *shown] if columns.get(REAL) else shown:
        # Drawn once; the other plots of a section point to it.
        under = (
            f'<use href="#{grey}"/>' if plots else f'<g id="{grey}" class="behind">{_path(to_plot(behind), "dot")}</g>'
        )
        marks = "".join(
            f'<g class="c{styles[condition].colour}"><title>{escape(condition)}</title>'
            f"{_path(to_plot(cells), styles[condition].shape)}</g>"
            for condition, cells in columns[name].items()
        )
        count = sum(map(len, columns[name].values()))
        plots[f"{name} (n = {count})"] = (
            f'<svg class="cells" viewBox="-8 -8 {_WIDTH + 16} {_HEIGHT + 16}" role="img">'
            f"<title>{count} cells of {escape(name)}</title>{under}{marks}</svg>"
        )
    legend = {
        condition: f'<svg class="mark" viewBox="-5 -5 10 10" aria-hidden="true"><g class="c{style.colour}">'
        f"{_path([(0.0, 0.0)], style.shape)}</g></svg>"
        for condition, style in styles.items()
    }
    return Map(section_title(key), how, legend, plots)


def _path(points: Sequence[Point], shape: str) -> str:
    """Return all points of a shape as one path of strokes without length: a tenth of the size of as many circles."""
    strokes = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points)
    hole = f'<path class="hole" d="{strokes}"/>' if shape in HOLLOW else ""
    return f'<path class="{shape}" d="{strokes}"/>{hole}'
