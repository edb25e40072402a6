"""10x Genomics' 3k blood cells with the types of clusters, as clustifyrdata ships them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.published.draft import Draft, Expression, file_of, look_up
from data_prep.published.h5 import ready_cells, whole_numbers
from data_prep.published.r_data import read_r

if TYPE_CHECKING:
    from anndata import AnnData

NAME = "pbmc_10x3k"


def load(files: Mapping[str, Path], variant: str) -> AnnData:
    """Return the cells; see :meth:`data_prep.registry.Dataset.load`."""
    values, cells, genes, kinds = ready_cells(files, NAME, "classified") or published(files)
    expression: Expression = "counts" if whole_numbers(values) else "log1p"
    draft = Draft(values, cells, genes)
    draft.put(cell_type=kinds, tissue="blood")
    draft.drop_copies()
    draft.drop_labels("cell_type")
    return draft.finish(NAME, variant, "human", expression)


def published(files: Mapping[str, Path]) -> tuple[Any, Any, Any, Any]:
    """Return (cells by genes, names of the cells, of the genes, types); the counts are genes by cells."""
    path = file_of(files, "pbmc_matrix.rda")
    values, genes, cells = read_r(path, lambda saved: saved["pbmc_matrix"].matrix())
    types = read_r(
        file_of(files, "pbmc_meta.rda"),
        lambda saved: dict(
            zip(
                saved["pbmc_meta"]["row.names"].texts(),
                saved["pbmc_meta"]["classified"].texts(),
                strict=True,
            )
        ),
    )
    return values.T.tocsr(), cells, genes, look_up(types, cells, str(path))
