"""Tirosh 2016, a sample of oligodendroglioma cells, as infercnvpy ships it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_prep.published.draft import Draft, Expression, file_of
from data_prep.published.h5 import backed, obs_column, sparse_rows, whole_numbers

if TYPE_CHECKING:
    from anndata import AnnData


def load(files: Mapping[str, Path], variant: str) -> AnnData:
    """Return the cells; see :meth:`data_prep.registry.Dataset.load`."""
    path = file_of(files, "oligodendroglioma.h5ad")
    with backed(path) as adata:
        expression: Expression = "counts" if whole_numbers(adata.X) else "tpm"
        draft = Draft(
            sparse_rows(adata.X, np.arange(adata.n_obs)), adata.obs_names.to_numpy(), adata.var_names.to_numpy()
        )
        draft.put(cell_type=obs_column(adata, "cell_type", path), tissue="brain")
    draft.drop_copies()
    return draft.finish("oligodendroglioma", variant, "human", expression)
