"""Domínguez Conde 2022, immune cells across human tissues, as CELLxGENE has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_prep.published.draft import Draft, file_of, rare_labels
from data_prep.published.h5 import backed, obs_column, sparse_rows

if TYPE_CHECKING:
    from anndata import AnnData

NO_SYMBOL = "gene without a symbol"


def load(files: Mapping[str, Path], variant: str) -> AnnData:
    """Return the cells; see :meth:`data_prep.registry.Dataset.load`.

    Counts are in ``raw``; ``var`` is indexed by Ensembl id, with the symbol under ``feature_name``.
    """
    path = file_of(files, "global.h5ad")
    with backed(path) as adata:
        counts, var = (adata.raw.X, adata.raw.var) if adata.raw is not None else (adata.X, adata.var)
        symbols = var.get("feature_name", var.index)
        draft = Draft(
            sparse_rows(counts, np.arange(adata.n_obs)),
            adata.obs_names.to_numpy(),
            symbols.astype(object).to_numpy(),
        )
        draft.put(
            cell_type=obs_column(adata, "cell_type", path),
            tissue=obs_column(adata, "tissue", path),
            donor=obs_column(adata, "donor_id", path),
        )
        ids = np.asarray(var.index.astype(str), dtype=object)
    named = np.array([gene not in ("", name) for gene, name in zip(draft.genes, ids, strict=True)], dtype=bool)
    if named.any():  # a gene without a symbol is called by its id in both places
        draft.keep_genes(named, NO_SYMBOL)
    draft.drop_copies()
    rare = rare_labels(draft.obs["cell_type"])
    draft.filter()
    draft.drop_labels("cell_type", rare)
    return draft.finish("human_immune", variant, "human", "counts")
