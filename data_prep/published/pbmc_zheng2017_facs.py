"""Zheng 2017, blood cells sorted by FACS, as fastTopics ships them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.published.draft import Draft, Expression, file_of
from data_prep.published.h5 import ready_cells, whole_numbers
from data_prep.published.r_data import RObject, read_r

if TYPE_CHECKING:
    from anndata import AnnData

NAME = "pbmc_zheng2017_facs"
PARTS = (("counts", "samples"), ("counts_test", "samples_test"))
"""The cells, in the two parts that fastTopics made of them."""


def load(files: Mapping[str, Path], variant: str) -> AnnData:
    """Return the cells; see :meth:`data_prep.registry.Dataset.load`."""
    found = ready_cells(files, NAME, "celltype") or read_r(file_of(files, "pbmc_facs.RData"), published)
    values, cells, genes, kinds = found
    expression: Expression = "counts" if whole_numbers(values) else "log1p"
    draft = Draft(values, cells, genes)
    draft.put(cell_type=kinds, tissue="blood")
    draft.drop_copies()
    return draft.finish(NAME, variant, "human", expression)


def published(saved: RObject) -> tuple[Any, Any, Any, Any]:
    """Return (cells by genes, names of the cells, of the genes, types); the counts are cells by genes already."""
    import scipy.sparse

    content = saved["pbmc_facs"]
    matrices = [content[counts].matrix() for counts, _ in PARTS]
    if any(columns != matrices[0][2] for _, _, columns in matrices):
        raise ValueError("the two parts have other genes")
    values = scipy.sparse.vstack([values for values, _, _ in matrices], format="csr")
    cells = [cell for _, rows, _ in matrices for cell in rows]
    kinds = [kind for _, samples in PARTS for kind in content[samples]["celltype"].texts()]
    return values, cells, content["genes"]["symbol"].texts(), kinds
