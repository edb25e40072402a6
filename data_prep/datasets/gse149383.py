"""Aissa 2021, the lung cancer line PC9 under erlotinib (GSE149383), as scDEAL prepared it."""

from __future__ import annotations

from data_prep.loading.dataset import SENSITIVITY, Dataset, Files, UserFile, not_published
from data_prep.loading.draft import Draft, look_up, read_matrix, read_rows
from data_prep.splits import INSTRUCTCELL

COUNTS, CELLS = "erl_total_data_2K.csv", "erl_total_2K_meta.csv"
STATUS = "3"  # the file has no header: an index, and then three values, of which the third is the status
SCDEAL = (
    "data.zip of scDEAL (the README of https://github.com/OSU-BMBL/scDEAL links to it), folder data/GSE149383, behind a"
    " web page without a fixed address"
)


def read(files: Files, variant: str) -> Draft:
    draft = Draft(*read_matrix(files[COUNTS], ","))
    rows = read_rows(files[CELLS], ",", header=False)
    if STATUS not in rows[0]:
        raise not_published(CELLS, f"lines of {len(rows[0])} fields, not 4")
    key = next((column for column in rows[0] if {row[column] for row in rows} & set(draft.cells)), "")
    labels = look_up({row[key]: row[STATUS] for row in rows} if key else {}, draft.cells, files[COUNTS])
    strange = sorted({label for label in labels if label.lower() not in ("", "sensitive", "resistant")})
    if strange:
        raise not_published(CELLS, f"the third value is {strange[0]!r}, neither sensitive nor resistant")
    draft.put(sensitivity=[label.capitalize() for label in labels], drug="erlotinib", cell_line="PC9")
    return draft.clean("sensitivity", max_genes=3000, max_mito=10.0)


DATASET = Dataset(
    title="Aissa 2021, lung cancer line PC9, erlotinib",
    tissue="lung",
    modality="Drop-seq, counts",
    sources=(UserFile(COUNTS, SCDEAL), UserFile(CELLS, SCDEAL)),
    citation="Aissa et al. 2021, Nature Communications 12:1628, doi:10.1038/s41467-021-21884-z",
    read=read,
    columns=("tissue", "drug", "sensitivity", "cell_line"),
    tasks=SENSITIVITY,
    cells=2_739,
    test_cells=226,
    split=INSTRUCTCELL,
    notes="The published size is before the caps on genes and mitochondrial counts, the test size after them (2,254"
    " cells). The label is the third value of a line without header.",
)
