"""Sharma 2018, oral carcinoma cells under cisplatin (GSE117872)."""

from __future__ import annotations

import numpy as np

from data_prep.loading.dataset import SENSITIVITY, Dataset, Files, geo, not_published
from data_prep.loading.draft import Draft, look_up, read_matrix, read_rows
from data_prep.splits import INSTRUCTCELL

TPM, CELLS = "GSE117872_good_Data_TPM.txt.gz", "GSE117872_good_Data_cellinfo.txt.gz"
STATUS = frozenset({"Sensitive", "Resistant", "Holiday"})


def read(files: Files, variant: str) -> Draft:
    """Return the cells, as TPM; as published a Holiday cell is Sensitive, corrected it is left out.

    The header of the cell table stands one column too far to the left: the drug status is under ``cluster``.
    """
    draft = Draft(*read_matrix(files[TPM], "\t"))
    rows = read_rows(files[CELLS], "\t")
    key, status = next(iter(rows[0])), status_column(rows)
    groups = {row[key]: next((v for v in list(row.values())[1:] if v.startswith("HN")), "") for row in rows}
    draft.put(
        sensitivity=look_up({row[key]: row[status] for row in rows}, draft.cells, files[TPM]),
        donor=[group[:5] for group in look_up(groups, draft.cells, files[TPM])],  # HN120PCR is of the patient HN120
        drug="cisplatin",
    )
    draft.drop_copies()
    holiday = draft.obs["sensitivity"] == "Holiday"
    if variant == "as_published":
        draft.put(sensitivity=np.where(holiday, "Sensitive", draft.obs["sensitivity"]))
    else:
        draft.keep_cells(~holiday, "cell on a drug holiday, neither sensitive nor resistant")
    return draft.clean("sensitivity")


def status_column(rows: list[dict[str, str]]) -> str:
    """Return the column that holds the drug status, whatever it is called."""
    values = {name: {row[name] for row in rows} - {""} for name in rows[0]}
    found = [name for name, held in values.items() if held and held <= STATUS]
    if len(found) != 1:
        raise not_published(CELLS, f"{len(found)} columns hold nothing but {', '.join(sorted(STATUS))}")
    return found[0]


DATASET = Dataset(
    title="Sharma 2018, oral carcinoma, cisplatin",
    tissue="oral squamous cell carcinoma",
    modality="full-length, TPM only",
    sources=geo("GSE117872", TPM, CELLS),
    citation="Sharma et al. 2018, Nature Communications 9:4931, doi:10.1038/s41467-018-07261-3",
    read=read,
    columns=("tissue", "donor", "drug", "sensitivity"),
    tasks=SENSITIVITY,
    cells=1_302,
    test_cells=131,
    split=INSTRUCTCELL,
    correction="cells on a drug holiday are left out; as published they count as Sensitive.",
    notes="The header of the cell table is shifted by one: the drug status stands under `cluster`.",
)
