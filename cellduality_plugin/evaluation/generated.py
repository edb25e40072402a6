"""Generated cells beside real ones: as AnnData for scanpy, and as points of the space of the distances."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.distances import nearest_labels
from cellduality_plugin.evaluation.embedding import cell_matrix, profile_name, rank_profile
from cellduality_plugin.evaluation.predictions import Prediction
from cellduality_plugin.evaluation.sections import Section
from cellduality_plugin.files import whole_file
from cellduality_plugin.vocabulary import Vocabulary

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame

REAL, TRAINING = "real cells", "training cells"
"""Columns of real cells: of the split that is evaluated, and of the training split, to which maps are fitted, too."""
RANK = "rank"
"""The layer of ranks: 1 for the gene that comes first, 0 for genes that a cell does not list."""
RANK_IS = "1 for the first gene of a cell sentence; 0 for genes that are not listed"


def can_write() -> None:
    """Refuse to go on without the package that writes AnnData: asked before minutes are spent on answers."""
    if importlib.util.find_spec("anndata") is None:
        hint = "in the folder of CellDuality: pip install '.[prep]', or pass --no-anndata"
        raise CellDualityError("anndata is not installed", code="not-installed", where="--anndata", hint=hint)


def write_generated(
    path: Path,
    predictions: Sequence[Prediction],
    sections: Sequence[Section],
    vocabulary: Vocabulary,
    made_from: Mapping[str, Any],
    real: bool = False,
) -> None:
    """Write the cells that one checkpoint wrote to ``path``, an .h5ad, whole or not at all; nothing without any.

    ``X`` is 1 - log(rank) / log(K + 1), a proxy of log-expression in (0, 1], with K the length of the longest real
    training cell; the ranks themselves are the layer "rank". Answers that could not be read are cells without genes,
    with ``parsed`` false and the reason in ``failure``. With ``real`` the real cells of the split follow, with
    ``origin`` "real".
    """
    import pandas as pd

    writing = [section for section in sections if section.writes_cells]
    rows: list[dict[str, Any]] = []
    cells: list[tuple[str, ...]] = []
    for section in writing:
        held_out = section.reference.held_out
        kinds, names = held_out.type_of, held_out.name_of
        own = [p for p in predictions if (p.task, p.id) in section.rows]
        if real:
            states = held_out.states or held_out.types
            own += [
                Prediction(row, section.pair.name, -1, state, None, "", genes, "", validity=1.0, similarity=np.nan)
                for row, state, genes in zip(held_out.ids, states, held_out.genes, strict=True)
            ]
        for p in own:
            asked = {"section": section.key, "condition": names.get(p.id, str(p.unknown))}
            asked |= {"cell_type": kinds.get(p.id, ""), "state": str(p.unknown) if held_out.states else ""}
            of = {"sample": p.sample, "origin": "real" if p.sample < 0 else "generated", "parsed": p.answer is not None}
            said = {"failure": p.failure, "validity": p.validity}
            dual = {"dual_similarity": p.similarity, "dual_failure": p.dual_failure}
            name = f"{section.key}/{p.id}/{'real' if p.sample < 0 else p.sample}"
            rows.append({"name": name, "row": p.id, "task": p.task, **asked, **of, **said, **dual})
            cells.append(tuple(p.answer or ()))
    if not cells:
        return
    top = max(len(cell) for section in writing for cell in section.reference.train.genes)
    obs = pd.DataFrame(rows).set_index("name")
    obs.index.name = None
    for column in ("section", "task", "condition", "cell_type", "state", "origin", "failure", "dual_failure"):
        obs[column] = pd.Categorical(obs[column], categories=sorted(set(obs[column])))
    content = as_anndata(cells, vocabulary.genes, top, obs, lambda ranks: rank_profile(top)[ranks - 1])
    content.uns["cellduality"] = {
        "made_from": json.dumps(made_from, sort_keys=True),
        "X": f"{profile_name(top)}, a proxy of expression; 0 for genes that are not listed",
        RANK: RANK_IS,
    }
    write_anndata(path, content)


def as_anndata(
    cells: Sequence[Sequence[str]],
    genes: Sequence[str],
    top: int,
    obs: DataFrame,
    expression: Callable[[NDArray[np.int32]], NDArray[Any]],
) -> AnnData:
    """Return ranked cells over ``genes``: in ``X`` the ``expression`` at each rank, in a layer the ranks.

    Ranks are 1 and more, 0 for genes that a cell does not list, or past ``top``.
    """
    import anndata
    import pandas as pd

    ranks = cell_matrix(cells, genes, top)
    own = (np.arange(1, min(len(cell), top) + 1, dtype=np.int32) for cell in cells)
    ranks.data = np.concatenate([np.empty(0, np.int32), *own])  # while genes still stand in the order of the cell
    ranks.sort_indices()
    matrix = ranks.astype(np.float32)
    matrix.data = expression(ranks.data).astype(np.float32)
    return anndata.AnnData(X=matrix, obs=obs, var=pd.DataFrame(index=list(genes)), layers={RANK: ranks})


def write_anndata(path: Path, content: AnnData) -> None:
    """Write ``content`` as an .h5ad, whole or not at all."""
    import anndata
    import h5py

    with whole_file(path, "w+b") as stream, h5py.File(stream, "w") as file:
        anndata.io.write_elem(file, "/", content)


def point_rows(
    predictions: Mapping[str, Sequence[Prediction]], sections: Sequence[Section]
) -> Iterator[dict[str, Any]]:
    """Yield a row a cell of each section that writes cells: real ones, then those of each column that could be read.

    Keys: ``section``, ``column``, ``id``, ``sample``; ``condition``, what the cell is or was asked to be; ``nearest``,
    what most of the k nearest held-out cells are, with the first k of the evaluation (None of real cells, and where
    there are fewer than k); ``point``, all its coordinates, and ``x`` and ``y``, the first two.
    """

    def row(key: str, column: str, cell: str, sample: int, name: str, nearest: str | None, at: Any) -> dict[str, Any]:
        place = [round(value, 4) for value in at.tolist()]
        asked = {"section": key, "column": column, "id": cell, "sample": sample, "condition": name}
        return {**asked, "nearest": nearest, "x": place[0], "y": place[1], "point": place}

    for section in (each for each in sections if each.writes_cells):
        key, reference, real, train = (
            section.key,
            section.reference,
            section.reference.held_out,
            section.reference.train,
        )
        for column, cells, points in (
            (TRAINING, train, reference.embedding(train.genes)),
            (REAL, real, reference.points),
        ):
            for cell, name, point in zip(cells.ids, cells.names, points, strict=True):
                yield row(key, column, cell, 0, name, None, point)
        k, names = reference.neighbours[0], real.name_of
        for column, made in predictions.items():
            own = [p for p in made if (p.task, p.id) in section.rows and p.answer]
            points = reference.embedding([tuple(p.answer or ()) for p in own])
            nearest: Sequence[str | None] = [None] * len(own)
            if own and k <= len(real):
                nearest = nearest_labels(cdist(points, reference.points), real.names, k)
            for p, other, point in zip(own, nearest, points, strict=True):
                yield row(key, column, p.id, p.sample, names.get(p.id, str(p.unknown)), other, point)
