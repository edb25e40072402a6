"""Ma 2020, mouse skin by SHARE-seq (GSE140203)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_prep.published.draft import Draft, file_of, look_up, rare_labels
from data_prep.published.tables import open_table, read_matrix, read_rows

if TYPE_CHECKING:
    from anndata import AnnData

COUNTS, LABELS = "GSM4156608_skin.late.anagen.rna.counts.txt", "GSM4156597_skin_celltype.txt"
MAX_GENES, MAX_MITO, MITO = 5000, 0.6, "mt-"


def load(files: Mapping[str, Path], variant: str) -> AnnData:
    """Return the cells; see :meth:`data_prep.registry.Dataset.load`.

    Barcodes hold commas in the counts and dots in the labels; dots are kept.
    """
    path = file_of(files, COUNTS)
    cells, genes, values = read_matrix(open_table(path, "\t"))
    draft = Draft(values, np.array([str(cell).replace(",", ".") for cell in cells], dtype=object), genes)
    labels = {
        row["rna.bc"].replace(",", "."): row["celltype"]
        for row in read_rows(file_of(files, LABELS), "\t")
        if {"rna.bc", "celltype"} <= set(row)
    }
    draft.put(cell_type=look_up(labels, draft.cells, str(path)), tissue="skin")
    draft.drop_copies()
    draft.drop_labels("cell_type")  # these are no cells of the publication: they go before anything is counted
    rare = rare_labels(draft.obs["cell_type"])
    draft.filter(max_genes=MAX_GENES, max_mito=MAX_MITO, mito=MITO)
    draft.drop_labels("cell_type", rare)
    return draft.finish("ma_2020", variant, "mouse", "counts")
