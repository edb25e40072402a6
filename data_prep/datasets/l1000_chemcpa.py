"""L1000, both phases, as chemCPA prepared it."""

from __future__ import annotations

from data_prep.datasets.l1000 import CHEMCPA, with_drugs
from data_prep.loading.dataset import RESPONSE, Dataset, Files, remote
from data_prep.loading.draft import Draft, read_cells

FILE = "lincs_full.h5ad"


def read(files: Files, variant: str) -> Draft:
    """Return the profiles of compounds and their vehicle."""
    columns = {name: name for name in ("pert_iname", "cell_id", "pert_dose")}
    draft = read_cells(files[FILE], columns, symbols="gene_symbol", optional=("pert_dose_unit", "pert_type"))
    draft.counts = False
    return with_drugs(draft)


DATASET = Dataset(
    title="L1000 as chemCPA prepared it",
    tissue="cell lines",
    modality="bulk, 978 landmark genes",
    sources=remote("https://f003.backblazeb2.com/file/chemCPA-datasets", f"{FILE}.gz", unpack=True),
    licence="none stated",
    citation="Hetzel et al. 2022, NeurIPS, arXiv:2204.13545; Subramanian et al. 2017, doi:10.1016/j.cell.2017.10.049",
    read=read,
    columns=("drug", "perturbation", "dose", "cell_line"),
    tasks=RESPONSE,
    cells=1_034_271,
    split=CHEMCPA,
    notes="Phases I and II (GSE92742, GSE70138), compounds and vehicles alone, ready made: what was filtered is"
    " chemCPA's choice.",
)
