"""Generated cells beside real ones: as AnnData for scanpy, as points of the space of the distances, and on a map."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from cellduality_plugin.evaluation.distances import nearest_labels
from cellduality_plugin.evaluation.embedding import cell_matrix, profile_name, rank_profile
from cellduality_plugin.evaluation.plots import MARKERS, PALETTE, plot_cells
from cellduality_plugin.evaluation.predictions import Prediction
from cellduality_plugin.evaluation.sections import Section
from cellduality_plugin.evaluation.tables import REAL, section_title
from cellduality_plugin.files import whole_file
from cellduality_plugin.perturbations import CONTROL
from cellduality_plugin.vocabulary import Vocabulary

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame

TRAINING = "training cells"  # the column of real cells of the training split, to which maps are fitted, too
RANK = "rank"  # the layer of ranks: 1 for the gene that comes first, 0 for genes that a cell does not list
RANK_IS = "1 for the first gene of a cell sentence; 0 for genes that are not listed"


def write_generated(
    path: Path,
    predictions: Sequence[Prediction],
    sections: Sequence[Section],
    vocabulary: Vocabulary,
    made_from: Mapping[str, Any],
    real: bool = False,
) -> None:
    """Write the cells that one checkpoint wrote to ``path``, an .h5ad, whole or not at all; nothing without any.

    ``X`` is the :func:`rank_profile` of the longest real training cell, the layer "rank" the ranks. Answers that could
    not be read are cells without genes. With ``real`` the real cells of the split follow.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    written = [section for section in sections if section.writes_cells]
    for section in written:
        held_out = section.reference.held_out
        kinds, names, own = held_out.type_of, held_out.name_of, section.own(predictions)
        if real:
            shown = zip(held_out.ids, held_out.states or held_out.types, held_out.genes, strict=True)
            own += [
                Prediction(row, section.pair.name, -1, state, None, "", genes, "", validity=1.0, similarity=np.nan)
                for row, state, genes in shown
            ]
        for p in own:
            drawn = p.sample >= 0
            rows.append(
                {
                    "name": f"{section.key}/{p.id}/{p.sample if drawn else 'real'}", "row": p.id, "task": p.task,
                    "section": section.key, "condition": names.get(p.id, str(p.unknown)),
                    "cell_type": kinds.get(p.id, ""), "state": str(p.unknown) if held_out.states else "",
                    "sample": p.sample, "origin": "generated" if drawn else "real", "parsed": p.answer is not None,
                    "failure": p.failure, "validity": p.validity, "dual_similarity": p.similarity,
                    "dual_failure": p.dual_failure, "genes": tuple(p.answer or ()),
                }
            )  # fmt: skip
    if not rows:
        return
    top = max(len(cell) for section in written for cell in section.reference.train.genes)
    obs = pd.DataFrame(rows).set_index("name").rename_axis(None)
    cells = obs.pop("genes").tolist()
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
    """Return ranked cells over ``genes``: in ``X`` the ``expression`` at each rank to ``top``, in a layer the ranks."""
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

    ``condition`` is what the cell is or was asked to be; ``nearest`` what most of the nearest held-out cells are, with
    the first k of the evaluation (None of real cells, or of fewer than k); ``point`` its coordinates, ``x`` and ``y``
    the first two.
    """

    def rows(column: str, cells: Iterable[tuple[str, int, str]], points: Any, nearest: Any) -> Iterator[dict[str, Any]]:
        for (cell, sample, name), near, at in zip(cells, nearest, points, strict=False):
            place = [round(value, 4) for value in at.tolist()]
            asked = {"section": section.key, "column": column, "id": cell, "sample": sample, "condition": name}
            yield {**asked, "nearest": near, "x": place[0], "y": place[1], "point": place}

    for section in (each for each in sections if each.writes_cells):
        reference, real, train = section.reference, section.reference.held_out, section.reference.train
        for column, cells, at in ((TRAINING, train, reference.embedding(train.genes)), (REAL, real, reference.points)):
            yield from rows(column, zip(cells.ids, repeat(0), cells.names, strict=False), at, repeat(None))
        k, names = reference.neighbours[0], real.name_of
        for column, made in predictions.items():
            own = [p for p in section.own(made) if p.answer]
            points = reference.embedding([tuple(p.answer or ()) for p in own])
            known = own and k <= len(real)
            nearest = nearest_labels(cdist(points, reference.points), real.names, k) if known else repeat(None)
            yield from rows(column, ((p.id, p.sample, names.get(p.id, str(p.unknown))) for p in own), points, nearest)


SHAPES, PERPLEXITY = tuple(MARKERS), 30


class Style(NamedTuple):
    """How a condition is drawn: in one of the page's colours (from 1), and in one of :data:`SHAPES`."""

    colour: int
    shape: str


def maps_of(
    rows: Iterable[Mapping[str, Any]], metrics: Mapping[str, Any], checkpoints: Sequence[str]
) -> list[dict[str, Any]]:
    """Return a map of each section among ``rows`` (of ``point_rows``), in the order of ``metrics``, as the page has it.

    Each is a t-SNE of real and generated cells together. ``plots`` by title are of real cells, then of each checkpoint;
    there are none if no checkpoint wrote a cell that can be read. ``legend`` is the :class:`Style` of each condition.
    """
    sections: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        sections.setdefault(row["section"], []).append(row)
    seed, found = metrics["settings"]["seed"], []
    for key, own in ((key, sections[key]) for key in metrics["spaces"] if key in sections):
        columns: dict[str, dict[str, list[int]]] = {}
        for place, row in enumerate(own):
            columns.setdefault(row["column"], {}).setdefault(row["condition"], []).append(place)
        how, styles, plots = "", dict[str, Style](), dict[str, str]()
        if any(name in columns for name in checkpoints):
            plane = tsne(np.array([row.get("point", (row["x"], row["y"])) for row in own]), seed)
            behind = plane[[row["column"] in (REAL, TRAINING) for row in own]]
            shown = {name: columns[name] for name in (REAL, *checkpoints) if name in columns}
            styles = styles_of(sorted({condition for column in shown.values() for condition in column}))
            how = "In grey the real cells, of training and of this split. "
            how += f"t-SNE (perplexity {PERPLEXITY}, seed {seed}) of real and generated cells together, "
            how += f"in {metrics['spaces'][key]}."
            for place, (name, column) in enumerate(shown.items()):
                count = sum(map(len, column.values()))
                cells = {condition: plane[places] for condition, places in sorted(column.items())}
                ids = re.sub(r"[^a-z]+", "-", f"cells-{key}") + f"-{place}"
                plot = plot_cells(ids, f"{count} cells of {name}", plane, behind, cells, styles)
                plots[f"{name} (n = {count})"] = plot
        found.append({"name": section_title(key), "how": how, "legend": styles, "plots": plots})
    return found


def tsne(points: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
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

    Where conditions are ``type, state``, the colour is the type's and the shape the state's while there are enough.
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
