"""Real and generated cells as points of the space of the distances: what the report draws and judges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from cellduality_plugin.evaluation.distances import nearest_labels
from cellduality_plugin.evaluation.predictions import Prediction
from cellduality_plugin.evaluation.sections import Section

REAL, TRAINING = "real cells", "training cells"
"""Columns of real cells: of the split that is evaluated, and of the training split, to which maps are fitted, too."""


def point_rows(
    predictions: Mapping[str, Sequence[Prediction]], sections: Sequence[Section]
) -> Iterator[dict[str, Any]]:
    """Yield a row a cell of each section that writes cells: real ones, then those of each column that could be read.

    Keys: ``section``, ``column``, ``id``, ``sample``; ``condition``, what the cell is or was asked to be; ``nearest``,
    what most of the k nearest held-out cells are, with the first k of the evaluation (None of real cells, and where
    there are fewer than k); ``point``, all its coordinates, and ``x`` and ``y``, the first two.
    """
    for section in (each for each in sections if each.writes_cells):
        reference, real, train = section.reference, section.reference.held_out, section.reference.train
        for column, cells, points in (
            (TRAINING, train, reference.embedding(train.genes)),
            (REAL, real, reference.points),
        ):
            for row, name, point in zip(cells.ids, cells.names, points, strict=True):
                yield _row(section.key, column, row, 0, name, None, point)
        k, names = reference.neighbours[0], real.name_of
        for column, made in predictions.items():
            own = [p for p in made if (p.task, p.id) in section.rows and p.answer]
            points = reference.embedding([tuple(p.answer or ()) for p in own])
            nearest: Sequence[str | None] = [None] * len(own)
            if own and k <= len(real):
                nearest = [str(name) for name in nearest_labels(cdist(points, reference.points), real.names, k)]
            for p, other, point in zip(own, nearest, points, strict=True):
                yield _row(section.key, column, p.id, p.sample, names.get(p.id, str(p.unknown)), other, point)


def _row(
    section: str, column: str, row: str, sample: int, condition: str, nearest: str | None, point: NDArray[np.float64]
) -> dict[str, Any]:
    place = [round(value, 4) for value in point.tolist()]
    cell = {"section": section, "column": column, "id": row, "sample": sample, "condition": condition}
    return {**cell, "nearest": nearest, "x": place[0], "y": place[1], "point": place}
