"""Bastidas-Ponce 2019, the developing mouse pancreas (GSE132188)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_prep.published.draft import Draft, file_of, rare_labels
from data_prep.published.h5 import backed, obs_column, sparse_rows, whole_numbers

if TYPE_CHECKING:
    from anndata import AnnData

LABEL = "clusters_fig6_broad_final"
MAX_MITO, MITO = 5.0, "mt-"


def load(files: Mapping[str, Path], variant: str) -> AnnData:
    """Return the cells; see :meth:`data_prep.registry.Dataset.load`. Whichever matrix holds counts is read."""
    path = file_of(files, "GSE132188_adata.h5ad.h5")
    with backed(path) as adata:
        matrices = [(adata.X, adata.var_names)]
        if adata.raw is not None:
            matrices.append((adata.raw.X, adata.raw.var_names))
        counted = [pair for pair in matrices if whole_numbers(pair[0])]
        matrix, genes = (counted or matrices)[0]
        draft = Draft(sparse_rows(matrix, np.arange(adata.n_obs)), adata.obs_names.to_numpy(), genes.to_numpy())
        labels = obs_column(adata, LABEL, path)
        draft.put(cell_type=[type_of("" if label != label else str(label)) for label in labels], tissue="pancreas")
    draft.drop_copies()
    rare = rare_labels(draft.obs["cell_type"])
    draft.filter(max_mito=MAX_MITO, mito=MITO)
    draft.drop_labels("cell_type", rare)
    return draft.finish("bastidas_ponce_2019", variant, "mouse", "counts" if counted else "log1p")


def type_of(cluster: str) -> str:
    """Return the cell type of a cluster: its last word, except that the level of Ngn3 is part of the type.

    Examples
    --------
    >>> [type_of(name) for name in ("Fev+ Alpha", "Ngn3 High early", "Ductal", "")]
    ['Alpha', 'Ngn3 High early', 'Ductal', '']
    """
    return cluster if cluster.startswith("Ngn3") or not cluster else cluster.split()[-1]
