"""Real and generated cells on a plane, coloured by what they are or were asked to be."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.evaluation.plots import MARKERS, PALETTE, plot_cells
from cellduality_plugin.evaluation.points import REAL, TRAINING
from cellduality_plugin.evaluation.tables import section_title
from cellduality_plugin.perturbations import CONTROL

Plane: TypeAlias = NDArray[np.float64]
"""Points x two dimensions."""

SHAPES = tuple(MARKERS)
NEIGHBOURS, MIN_DIST = 15, 0.3
GREY = "In grey the real cells, of training and of this split."
FLAT = f"{GREY} The first two dimensions of the space of the distances."
NO_UMAP = "A UMAP needs umap-learn: pip install 'cellduality[eval]'."
NO_POINTS = "A UMAP needs what this version of the evaluation writes: evaluate again."


@dataclass(frozen=True)
class Style:
    """How a condition is drawn: in one of the page's colours (from 1), and in one of :data:`SHAPES`."""

    colour: int
    shape: str


@dataclass(frozen=True)
class Map:
    """The plots of one section: real cells, then each checkpoint's; none if no checkpoint wrote a readable cell."""

    name: str
    how: str
    legend: Mapping[str, Style]
    plots: Mapping[str, str]


def maps_of(rows: Iterable[Mapping[str, Any]], metrics: Mapping[str, Any], checkpoints: Sequence[str]) -> list[Map]:
    """Return a map of each section that writes cells, in the order of ``metrics``.

    Each is a UMAP, fitted on the real cells; where umap-learn is not installed, the first two dimensions.

    Parameters
    ----------
    rows
        As :func:`cellduality_plugin.evaluation.points.point_rows` gives them.
    """
    sections: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        sections.setdefault(row["section"], []).append(row)
    return [
        _map(key, sections[key], space, metrics["settings"]["seed"], checkpoints)
        for key, space in metrics["spaces"].items()
        if key in sections
    ]


def _map(key: str, rows: Sequence[Mapping[str, Any]], space: str, seed: int, checkpoints: Sequence[str]) -> Map:
    columns: dict[str, dict[str, list[int]]] = {}
    for place, row in enumerate(rows):
        columns.setdefault(row["column"], {}).setdefault(row["condition"], []).append(place)
    if not any(name in columns for name in checkpoints):
        return Map(section_title(key), "", {}, {})
    plane, how = _plane(rows, space, seed)
    behind = plane[_real(rows)]
    shown = {name: columns[name] for name in (REAL, *checkpoints) if name in columns}
    styles = styles_of(sorted({condition for column in shown.values() for condition in column}))
    plots = {}
    for place, (name, column) in enumerate(shown.items()):
        count = sum(map(len, column.values()))
        cells = {condition: plane[places] for condition, places in sorted(column.items())}
        ids = re.sub(r"[^a-z]+", "-", f"cells-{key}") + f"-{place}"
        plots[f"{name} (n = {count})"] = plot_cells(ids, f"{count} cells of {name}", plane, behind, cells, styles)
    return Map(section_title(key), how, styles, plots)


def _real(rows: Sequence[Mapping[str, Any]]) -> NDArray[np.bool_]:
    return np.array([row["column"] in (REAL, TRAINING) for row in rows])


def _plane(rows: Sequence[Mapping[str, Any]], space: str, seed: int) -> tuple[Plane, str]:
    """Return the place of each row on the plane, and what the plane is."""
    plane, real = np.array([(row["x"], row["y"]) for row in rows]), _real(rows)
    if "point" not in rows[0]:
        return plane, f"{FLAT} {NO_POINTS}"
    points = np.array([row["point"] for row in rows])
    try:
        plane[real], plane[~real] = umap(points[real], points[~real], seed)
    except ImportError:
        return plane, f"{FLAT} {NO_UMAP}"
    return plane, (
        f"{GREY} UMAP ({NEIGHBOURS} neighbours, minimum distance {MIN_DIST}, seed {seed}), fitted on these "
        f"{real.sum()} real cells in {space}; generated cells are placed on it afterwards and move nothing: those "
        "unlike any real cell come to lie at a rim."
    )


def umap(real: NDArray[np.float64], new: NDArray[np.float64], seed: int) -> tuple[Plane, Plane]:
    """Return the planes' coordinates of ``real`` points, to which the map is fitted, and of ``new`` ones.

    The seed fixes both; one thread, since several would not agree with themselves.

    Raises
    ------
    ImportError
        If umap-learn is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportWarning)  # says that TensorFlow, for which there is no use, is missing
        from umap import UMAP

    start = "spectral" if len(real) > 10 else "random"  # a handful of cells has no spectrum to start from
    neighbours, seeds = min(NEIGHBOURS, len(real) - 1), {"random_state": seed, "transform_seed": seed}
    fit = UMAP(n_neighbors=neighbours, min_dist=MIN_DIST, init=start, n_jobs=1, **seeds).fit(real)
    placed = fit.transform(new) if len(new) else np.empty((0, 2))
    return np.asarray(fit.embedding_, dtype=float), np.asarray(placed, dtype=float)


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
    if all(kinds) and math.ceil(len(kinds) / len(PALETTE)) * len(states) <= len(SHAPES):
        places = [(kinds.index(kind), len(states), states.index(state)) for kind, _, state in split]
    else:
        places = [(place, 1, 0) for place in range(len(conditions))]
    return {
        condition: Style(place % len(PALETTE) + 1, SHAPES[(place // len(PALETTE) * step + state) % len(SHAPES)])
        for condition, (place, step, state) in zip(conditions, places, strict=True)
    }
