"""Real and generated cells on a plane, coloured by what they are or were asked to be."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.evaluation.generated import REAL, TRAINING
from cellduality_plugin.evaluation.plots import MARKERS, PALETTE, plot_cells
from cellduality_plugin.evaluation.tables import section_title
from cellduality_plugin.perturbations import CONTROL

Plane: TypeAlias = NDArray[np.float64]
"""Points x two dimensions."""

SHAPES = tuple(MARKERS)
PERPLEXITY = 30


@dataclass(frozen=True)
class Style:
    """How a condition is drawn: in one of the page's colours (from 1), and in one of :data:`SHAPES`."""

    colour: int
    shape: str


def maps_of(
    rows: Iterable[Mapping[str, Any]], metrics: Mapping[str, Any], checkpoints: Sequence[str]
) -> list[dict[str, Any]]:
    """Return a map of each section among ``rows`` (of ``point_rows``), in the order of ``metrics``, as the page has it.

    Each is a t-SNE of real and generated cells together (of the first two dimensions, where the evaluation, an old one,
    wrote no more). ``plots`` by title are of real cells, then of each checkpoint; there are none if no checkpoint wrote
    a cell that can be read. ``legend`` is the :class:`Style` of each condition.
    """
    sections: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        sections.setdefault(row["section"], []).append(row)
    seed, found = metrics["settings"]["seed"], []
    for key, own in ((key, sections[key]) for key in metrics["spaces"] if key in sections):
        columns: dict[str, dict[str, list[int]]] = {}
        for place, row in enumerate(own):
            columns.setdefault(row["column"], {}).setdefault(row["condition"], []).append(place)
        if not any(name in columns for name in checkpoints):
            found.append({"name": section_title(key), "how": "", "legend": {}, "plots": {}})
            continue
        plane = tsne(np.array([row.get("point", (row["x"], row["y"])) for row in own]), seed)
        behind = plane[[row["column"] in (REAL, TRAINING) for row in own]]
        shown = {name: columns[name] for name in (REAL, *checkpoints) if name in columns}
        styles = styles_of(sorted({condition for column in shown.values() for condition in column}))
        plots = {}
        for place, (name, column) in enumerate(shown.items()):
            count = sum(map(len, column.values()))
            cells = {condition: plane[places] for condition, places in sorted(column.items())}
            ids = re.sub(r"[^a-z]+", "-", f"cells-{key}") + f"-{place}"
            plots[f"{name} (n = {count})"] = plot_cells(ids, f"{count} cells of {name}", plane, behind, cells, styles)
        how = "In grey the real cells, of training and of this split. "
        how += f"t-SNE (perplexity {PERPLEXITY}, seed {seed}) of real and generated cells together, "
        how += f"in {metrics['spaces'][key]}."
        found.append({"name": section_title(key), "how": how, "legend": styles, "plots": plots})
    return found


def tsne(points: NDArray[np.float64], seed: int) -> Plane:
    """Return a plane on which neighbours among ``points`` (points x dimensions) stay neighbours."""
    from sklearn.manifold import TSNE

    if len(points) < 4:  # too few for any neighbourhood
        return np.zeros((len(points), 2))
    perplexity = min(PERPLEXITY, (len(points) - 1) / 3)
    start = "pca" if min(points.shape) >= 2 else "random"
    drawn = TSNE(perplexity=perplexity, init=start, max_iter=500, random_state=seed).fit_transform(points)
    return np.asarray(drawn, dtype=float)


def styles_of(conditions: Sequence[str]) -> dict[str, Style]:
    """Return how each condition is drawn, so that no two look alike while there are at most 24.

    Where conditions are ``type, state``, the colour is the type's and the shape the state's; of more types than
    colours the further ones are square. Control cells are filled, those of the second state hollow.
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
