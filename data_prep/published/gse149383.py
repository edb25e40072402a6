"""Aissa 2021, the lung cancer line PC9 under erlotinib (GSE149383), as scDEAL prepared it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cellduality_plugin.errors import CellDualityError
from data_prep.published.draft import Draft, file_of, look_up
from data_prep.published.tables import open_table, read_matrix, read_rows

if TYPE_CHECKING:
    from anndata import AnnData

COUNTS, CELLS = "erl_total_data_2K.csv", "erl_total_2K_meta.csv"
STATUS = "3"
"""The file has no header: an index, and then three values, of which the third is the status."""
MAX_GENES, MAX_MITO = 3000, 10.0


def load(files: Mapping[str, Path], variant: str) -> AnnData:
    """Return the cells; see :meth:`data_prep.registry.Dataset.load`.

    Raises
    ------
    CellDualityError
        If a status is neither sensitive nor resistant.
    """
    path = file_of(files, COUNTS)
    cells, genes, values = read_matrix(open_table(path, ","))
    draft = Draft(values, cells, genes)
    rows = read_rows(file_of(files, CELLS), ",", header=False)
    if STATUS not in rows[0]:
        raise CellDualityError(
            f"lines of {len(rows[0])} fields, not 4", where=CELLS, mend="take the file of scDEAL's data.zip"
        )
    key = next((column for column in rows[0] if {row[column] for row in rows} & set(draft.cells)), "")
    labels = look_up({row[key]: row[STATUS] for row in rows} if key else {}, draft.cells, str(path))
    strange = sorted({label for label in labels if label.lower() not in ("", "sensitive", "resistant")})
    if strange:
        raise CellDualityError(
            f"the third value is {strange[0]!r}, neither sensitive nor resistant",
            where=CELLS,
            mend="take the file of scDEAL's data.zip",
        )
    draft.put(sensitivity=[label.capitalize() for label in labels], drug="erlotinib", tissue="lung", cell_line="PC9")
    draft.drop_copies()
    draft.filter(max_genes=MAX_GENES, max_mito=MAX_MITO)
    draft.drop_labels("sensitivity")
    return draft.finish("gse149383", variant, "human", "counts")
