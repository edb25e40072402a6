"""Generated cells as AnnData: what scanpy reads, with the condition that each was asked to be."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.embedding import cell_matrix
from cellduality_plugin.evaluation.predictions import Prediction
from cellduality_plugin.evaluation.sections import Section
from cellduality_plugin.files import whole_file
from cellduality_plugin.vocabulary import Vocabulary

RANK = "rank"
"""The layer of ranks: 1 for the gene that comes first, 0 for genes that a cell does not list."""

_CATEGORIES = ("section", "task", "condition", "cell_type", "state", "origin", "failure", "dual_failure")


def can_write() -> None:
    """Return nothing if AnnData can be written: to be asked before minutes are spent on answers.

    Raises
    ------
    CellDualityError
        If the package is not there.
    """
    if importlib.util.find_spec("anndata") is None:
        raise CellDualityError(
            "no package anndata to write generated cells with",
            mend="pip install 'cellduality[prep]', or pass --no-anndata",
        )


def write_generated(
    path: Path,
    predictions: Sequence[Prediction],
    sections: Sequence[Section],
    vocabulary: Vocabulary,
    made_from: Mapping[str, Any],
    *,
    real: bool = False,
) -> int:
    """Return how many cells were written to ``path``, an .h5ad, whole or not at all; no file where there are none.

    Answers that could not be read are cells without genes, with ``parsed`` false and the reason in ``failure``.

    Parameters
    ----------
    predictions
        Of one checkpoint.
    sections
        Those that write cells count.
    vocabulary
        Its genes are the variables.
    made_from
        The provenance, for ``uns``.
    real
        Whether the real cells of the split follow, with ``origin`` "real".

    Notes
    -----
    A cell sentence holds ranks and no counts. ``X`` is 1 - log(rank) / log(K + 1), a proxy of log-expression scaled to
    (0, 1], with K the length of the longest real training cell; genes past rank K are left out. The ranks themselves
    are the layer "rank".
    """
    writing = [section for section in sections if section.writes_cells]
    rows: list[dict[str, Any]] = []
    cells: list[tuple[str, ...]] = []
    for section in writing:
        own = [p for p in predictions if (p.task, p.id) in section.rows]
        rows += _generated_rows(section, own)
        cells += [tuple(p.answer or ()) for p in own]
        if real:
            rows += _real_rows(section)
            cells += section.yardstick.held_out.genes
    if not cells:
        return 0
    top = max(len(cell) for section in writing for cell in section.yardstick.train.genes)
    _write(path, rows, cells, vocabulary.genes, top, made_from)
    return len(cells)


def _generated_rows(section: Section, predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    held_out = section.yardstick.held_out
    kinds, names = dict(zip(held_out.ids, held_out.types, strict=True)), held_out.name_of
    return [
        {
            "name": f"{section.key}/{p.id}/{p.sample}",
            "row": p.id,
            "task": p.task,
            "section": section.key,
            "condition": names.get(p.id, str(p.unknown)),
            "cell_type": kinds.get(p.id, ""),
            "state": str(p.unknown) if held_out.states else "",
            "sample": p.sample,
            "origin": "generated",
            "parsed": p.answer is not None,
            "failure": p.failure,
            "validity": p.validity,
            "dual_similarity": p.similarity,
            "dual_failure": p.dual_failure,
        }
        for p in predictions
    ]


def _real_rows(section: Section) -> list[dict[str, Any]]:
    held_out = section.yardstick.held_out
    return [
        {
            "name": f"{section.key}/{row}/real",
            "row": row,
            "task": section.pair.name,
            "section": section.key,
            "condition": name,
            "cell_type": kind,
            "state": state,
            "sample": -1,
            "origin": "real",
            "parsed": True,
            "failure": "",
            "validity": 1.0,
            "dual_similarity": np.nan,
            "dual_failure": "",
        }
        for row, name, kind, state in zip(
            held_out.ids,
            held_out.names,
            held_out.types,
            held_out.states or ("",) * len(held_out),
            strict=True,
        )
    ]


def _write(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    cells: Sequence[tuple[str, ...]],
    genes: Sequence[str],
    top: int,
    made_from: Mapping[str, Any],
) -> None:
    import anndata
    import h5py
    import pandas as pd

    obs = pd.DataFrame(rows).set_index("name")
    obs.index.name = None
    for column in _CATEGORIES:
        obs[column] = pd.Categorical(obs[column], categories=sorted(set(obs[column])))
    weights = cell_matrix(cells, genes, top)
    ranks = weights.copy()  # while genes still stand in the order of the cell
    ranks.data = np.concatenate([np.arange(1, min(len(cell), top) + 1, dtype=np.int32) for cell in cells])
    for matrix in (weights, ranks):
        matrix.sort_indices()
    content = anndata.AnnData(
        X=weights.astype(np.float32), obs=obs, var=pd.DataFrame(index=pd.Index(genes)), layers={RANK: ranks}
    )
    content.uns["cellduality"] = {
        "made_from": json.dumps(made_from, sort_keys=True),
        "X": f"1 - log(rank)/log({top + 1}), a proxy of expression; 0 for genes that are not listed",
        RANK: "1 for the first gene of a cell sentence; 0 for genes that are not listed",
    }
    with whole_file(path, "w+b") as stream, h5py.File(stream, "w") as file:
        anndata.io.write_elem(file, "/", content)
