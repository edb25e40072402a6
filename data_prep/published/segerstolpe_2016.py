"""Segerstolpe 2016, human pancreas (E-MTAB-5061)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cellduality_plugin.errors import CellDualityError
from data_prep.published.draft import Draft, file_of, look_up, rare_labels
from data_prep.published.tables import open_table, read_matrix, read_rows

if TYPE_CHECKING:
    from anndata import AnnData

MATRIX, SDRF = "pancreas_refseq_rpkms_counts_3514sc.txt", "E-MTAB-5061.sdrf.txt"
GENE_ROWS = 26_177
"""Lines of genes; spike-ins and a reporter follow."""
ID_FIELDS = 2
"""Gene and RefSeq accession, before the numbers."""
MAX_GENES = 10_000
NO_TYPE = frozenset({"co-expression cell", "unclassified cell", "unclassified endocrine cell", "not applicable"})
NO_TYPE_REASON = "cell whose label is no type (co-expression, unclassified)"
POOR, GOOD = "well that failed the publication's quality control", "OK"


def load(files: Mapping[str, Path], variant: str) -> AnnData:
    """Return the cells; see :meth:`data_prep.registry.Dataset.load`.

    A line holds a gene's RPKM in all cells and then its counts in all cells, under one header with each cell once.
    The counts are read.
    """
    path = file_of(files, MATRIX)
    table = open_table(path, "\t")
    n_cells, odd = divmod(table.width - ID_FIELDS, 2)
    cells = [name for name in table.header if name != "#samples"][:n_cells]
    if odd or len(cells) != n_cells:
        raise CellDualityError(
            f"{table.width - ID_FIELDS} numbers a line for {len(cells)} cells, not twice as many",
            where=str(path),
            mend="remove the file and fetch the set again",
        )
    _, genes, values = read_matrix(table, names=ID_FIELDS, columns=slice(n_cells, None), rows=GENE_ROWS)
    draft = Draft(values, np.array(cells, dtype=object), genes)

    rows = read_rows(file_of(files, SDRF), "\t")  # names that repeat (Protocol REF) keep the last value
    name, quality, label, donor = (
        column_like(rows, wanted, SDRF) for wanted in ("sourcename", "quality", "inferredcelltype", "individual")
    )
    good = {row[name] for row in rows if row[quality] == GOOD}
    draft.put(
        cell_type=look_up({row[name]: row[label] for row in rows}, draft.cells, str(path)),
        donor=look_up({row[name]: row[donor] for row in rows}, draft.cells, str(path)),
        tissue="pancreas",
    )
    draft.drop_copies()
    draft.keep_cells(np.array([cell in good for cell in draft.cells], dtype=bool), POOR)
    rare = rare_labels(draft.obs["cell_type"])
    draft.filter(max_genes=MAX_GENES)
    draft.keep_cells(np.array([kind not in NO_TYPE for kind in draft.obs["cell_type"]], dtype=bool), NO_TYPE_REASON)
    draft.drop_labels("cell_type", rare)
    return draft.finish("segerstolpe_2016", variant, "human", "counts")


def column_like(rows: list[dict[str, str]], wanted: str, where: str) -> str:
    """Return the column whose name holds ``wanted``, spaces and case aside: they vary between releases.

    Raises
    ------
    CellDualityError
        If there is none.

    Examples
    --------
    >>> column_like([{"Source Name": "", "Characteristics [inferred cell type]": ""}], "inferredcelltype", "")
    'Characteristics [inferred cell type]'
    """
    for name in rows[0]:
        if wanted in name.lower().replace(" ", ""):
            return name
    raise CellDualityError(f"no column like {wanted!r}", where=where, mend="remove the file and fetch the set again")
