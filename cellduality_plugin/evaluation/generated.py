"""Generated cells as AnnData: what scanpy reads, with the condition that each was asked to be."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.embedding import cell_matrix, profile_name, rank_profile
from cellduality_plugin.evaluation.predictions import Prediction
from cellduality_plugin.evaluation.sections import Section
from cellduality_plugin.files import whole_file
from cellduality_plugin.vocabulary import Vocabulary

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame

RANK = "rank"
"""The layer of ranks: 1 for the gene that comes first, 0 for genes that a cell does not list."""
RANK_IS = "1 for the first gene of a cell sentence; 0 for genes that are not listed"


def can_write() -> None:
    """Refuse to go on without the package that writes AnnData: asked before minutes are spent on answers."""
    if importlib.util.find_spec("anndata") is None:
        hint = "pip install 'cellduality[prep]', or pass --no-anndata"
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
        held_out, pair = section.reference.held_out, section.pair.name
        own = [p for p in predictions if (p.task, p.id) in section.rows]
        if real:
            states = held_out.states or held_out.types
            own += [
                Prediction(row, pair, -1, state, None, "", genes, "", validity=1.0, similarity=np.nan)
                for row, state, genes in zip(held_out.ids, states, held_out.genes, strict=True)
            ]
        kinds, names = held_out.type_of, held_out.name_of
        for p in own:
            rows.append(
                {
                    "name": f"{section.key}/{p.id}/{'real' if p.sample < 0 else p.sample}",
                    "row": p.id,
                    "task": p.task,
                    "section": section.key,
                    "condition": names.get(p.id, str(p.unknown)),
                    "cell_type": kinds.get(p.id, ""),
                    "state": str(p.unknown) if held_out.states else "",
                    "sample": p.sample,
                    "origin": "real" if p.sample < 0 else "generated",
                    "parsed": p.answer is not None,
                    "failure": p.failure,
                    "validity": p.validity,
                    "dual_similarity": p.similarity,
                    "dual_failure": p.dual_failure,
                }
            )
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
    """Return ranked cells over ``genes``: in ``X`` the ``expression`` at each rank, in a layer the ranks."""
    import anndata
    import pandas as pd

    ranks = rank_matrix(cells, genes, top)
    matrix = ranks.astype(np.float32)
    matrix.data = expression(ranks.data).astype(np.float32)
    return anndata.AnnData(X=matrix, obs=obs, var=pd.DataFrame(index=list(genes)), layers={RANK: ranks})


def rank_matrix(cells: Sequence[Sequence[str]], genes: Sequence[str], top: int) -> csr_matrix:
    """Return cells x ``genes``, int32: the rank of each gene, 0 for genes a cell does not list, or past ``top``.

    Examples
    --------
    >>> rank_matrix([("B", "A"), ("C",)], ("A", "B", "C"), top=3).toarray().tolist()
    [[2, 1, 0], [0, 0, 1]]
    """
    ranks = cell_matrix(cells, genes, top).copy()
    ranks.data = np.concatenate(
        [np.empty(0, np.int32), *(np.arange(1, min(len(cell), top) + 1, dtype=np.int32) for cell in cells)]
    )  # while genes still stand in the order of the cell
    ranks.sort_indices()
    return ranks


def write_anndata(path: Path, content: AnnData) -> None:
    """Write ``content`` as an .h5ad, whole or not at all."""
    import anndata
    import h5py

    with whole_file(path, "w+b") as stream, h5py.File(stream, "w") as file:
        anndata.io.write_elem(file, "/", content)
