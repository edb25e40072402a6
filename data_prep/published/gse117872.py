"""Sharma 2018, oral carcinoma cells under cisplatin (GSE117872)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cellduality_plugin.errors import CellDualityError
from data_prep.published.draft import Draft, file_of, look_up
from data_prep.published.tables import open_table, read_matrix, read_rows

if TYPE_CHECKING:
    from anndata import AnnData

TPM, CELLS = "GSE117872_good_Data_TPM.txt", "GSE117872_good_Data_cellinfo.txt"
STATUS = frozenset({"Sensitive", "Resistant", "Holiday"})
HOLIDAY = "cell on a drug holiday, neither sensitive nor resistant"


def load(files: Mapping[str, Path], variant: str) -> AnnData:
    """Return the cells; see :meth:`data_prep.registry.Dataset.load`.

    The names in the header of the cell table stand one column too far to the left, so that the drug status is found
    under ``cluster``, the group under ``cell_color`` and the patient under ``origin``. As published, a Holiday cell is
    Sensitive; corrected, it is left out. There are no counts, only TPM.
    """
    path = file_of(files, TPM)
    cells, genes, values = read_matrix(open_table(path, "\t"))
    draft = Draft(values, cells, genes)
    rows = read_rows(file_of(files, CELLS), "\t")
    key, status = next(iter(rows[0])), status_column(rows)
    labels = look_up({row[key]: row[status] for row in rows}, draft.cells, str(path))
    draft.put(
        sensitivity=labels,
        donor=[patient(group) for group in look_up({row[key]: group_of(row) for row in rows}, draft.cells, str(path))],
        drug="cisplatin",
        tissue="oral squamous cell carcinoma",
    )
    draft.drop_copies()
    if variant == "as_published":
        draft.put(sensitivity=np.where(draft.obs["sensitivity"] == "Holiday", "Sensitive", draft.obs["sensitivity"]))
    else:
        draft.keep_cells(draft.obs["sensitivity"] != "Holiday", HOLIDAY)
    draft.filter()
    draft.drop_labels("sensitivity")
    return draft.finish("gse117872", variant, "human", "tpm")


def status_column(rows: list[dict[str, str]]) -> str:
    """Return the column that holds the drug status, whatever it is called.

    Raises
    ------
    CellDualityError
        If none does, or several do.

    Examples
    --------
    >>> status_column([{"drug_status": "Primary", "cluster": "Holiday"}, {"drug_status": "Primary", "cluster": ""}])
    'cluster'
    """
    found = [
        name for name in rows[0] if any(row[name] for row in rows) and {row[name] for row in rows} <= STATUS | {""}
    ]
    if len(found) != 1:
        raise CellDualityError(
            f"{len(found)} columns hold nothing but {', '.join(sorted(STATUS))}",
            where=CELLS,
            mend="remove the file and fetch the set again",
        )
    return found[0]


def group_of(row: Mapping[str, str]) -> str:
    """Return the first value of a line that looks like a group (HN120PCR)."""
    return next((value for value in list(row.values())[1:] if value.startswith("HN")), "")


def patient(group: str) -> str:
    """Return the patient a group of cells is of.

    Examples
    --------
    >>> patient("HN120PCR"), patient("")
    ('HN120', '')
    """
    return group[:5]
