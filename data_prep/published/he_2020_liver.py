"""He 2020, the liver of the adult human cell atlas (GSE159929)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_prep.published.draft import Draft, file_of, look_up, rare_labels
from data_prep.published.tables import open_table, read_matrix, read_rows

if TYPE_CHECKING:
    from anndata import AnnData

COUNTS, LABELS = "GSM4850582_Liver_Counts.csv", "Annotation_AHCA_alltissues_meta.data_84363_cell.txt"
LABEL = "Cell_type_in_merged_data"
PREFIX = "Liver_cDNA_"
MAX_GENES, MAX_MITO = 3000, 10.0
MARKER = re.compile(r"\s+[A-Z][A-Z0-9-]*$")


def load(files: Mapping[str, Path], variant: str) -> AnnData:
    """Return the cells; see :meth:`data_prep.registry.Dataset.load`.

    The labels are those of the atlas with all tissues merged; they name a cell by tissue and barcode.
    """
    path = file_of(files, COUNTS)
    cells, genes, values = read_matrix(open_table(path, ","))
    draft = Draft(values, cells, genes)
    labels = read_rows(file_of(files, LABELS), "\t")
    key = next(iter(labels[0]))  # R left the header of the row names out, or empty
    table = {row[key]: row[LABEL] for row in labels if LABEL in row}
    draft.put(cell_type=look_up(table, [PREFIX + cell for cell in draft.cells], str(path)), tissue="liver")
    draft.drop_copies()
    rare = rare_labels(draft.obs["cell_type"])
    draft.filter(max_genes=MAX_GENES, max_mito=MAX_MITO)
    draft.drop_labels("cell_type", rare)
    draft.put(cell_type=np.array([without_marker(label) for label in draft.obs["cell_type"]], dtype=object))
    return draft.finish("he_2020_liver", variant, "human", "counts")


def without_marker(label: str) -> str:
    """Return a label without the marker gene at its end.

    Examples
    --------
    >>> [without_marker(label) for label in ("B Cell CD79A", "NK/T Cell GNLY", "Plasma Cell JCHAIN", "Cholangiocyte")]
    ['B Cell', 'NK/T Cell', 'Plasma Cell', 'Cholangiocyte']
    """
    return MARKER.sub("", label)
