"""Stewart 2019, immune cells of the kidney, as ktplotspy ships them."""

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
    """Return the cells; see :meth:`data_prep.registry.Dataset.load`."""
    path = file_of(files, "kidneyimmune.h5ad")
    with backed(path) as adata:
        draft = Draft(
            sparse_rows(adata.X, np.arange(adata.n_obs)), adata.obs_names.to_numpy(), adata.var_names.to_numpy()
        )
        draft.put(
            cell_type=obs_column(adata, "celltype", path),
            tissue="kidney",
            donor=obs_column(adata, "Experiment", path),
        )
    draft.drop_copies()
    return draft.finish("kidney_immune", variant, "human", "log1p")
