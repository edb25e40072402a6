"""Zheng 2017, 700 blood cells, as scanpy ships them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_prep.published.draft import Draft, file_of
from data_prep.published.h5 import backed, obs_column, sparse_rows

if TYPE_CHECKING:
    from anndata import AnnData


def load(files: Mapping[str, Path], variant: str) -> AnnData:
    """Return the cells; see :meth:`data_prep.registry.Dataset.load`. ``X`` of the file is scaled: ``raw`` is read."""
    path = file_of(files, "10x_pbmc68k_reduced.h5ad")
    with backed(path) as adata:
        raw = adata.raw
        values = sparse_rows(raw.X, np.arange(adata.n_obs))
        draft = Draft(values, adata.obs_names.to_numpy(), raw.var_names.to_numpy())
        draft.put(cell_type=obs_column(adata, "bulk_labels", path), tissue="blood")
    draft.drop_copies()
    return draft.finish("pbmc68k_reduced", variant, "human", "log1p")
