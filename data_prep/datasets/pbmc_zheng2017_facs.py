"""Zheng 2017, blood cells sorted by FACS, as fastTopics ships them."""

from __future__ import annotations

from data_prep.loading.dataset import GITHUB, Dataset, Files, remote
from data_prep.loading.draft import Draft, ready_cells
from data_prep.loading.r_data import RObject, read_r

FILE, LABEL = "pbmc_facs.RData", "celltype"
PARTS = (("counts", "samples"), ("counts_test", "samples_test"))
"""The cells, in the two parts that fastTopics made of them."""


def read(files: Files, variant: str) -> Draft:
    return (ready_cells(files, {"cell_type": LABEL}) or read_r(files[FILE], published)).logs_unless_whole()


def published(saved: RObject) -> Draft:
    """Return the cells of both parts; the counts are cells by genes already."""
    import scipy.sparse

    content = saved["pbmc_facs"]
    matrices = [content[counts].matrix() for counts, _ in PARTS]
    if any(columns != matrices[0][2] for _, _, columns in matrices):
        raise ValueError("the two parts have other genes")
    values = scipy.sparse.vstack([values for values, _, _ in matrices], format="csr")
    cells = [cell for _, rows, _ in matrices for cell in rows]
    kinds = [kind for _, samples in PARTS for kind in content[samples][LABEL].texts()]
    return Draft(values, cells, content["genes"]["symbol"].texts()).put(cell_type=kinds)


DATASET = Dataset(
    title="Zheng 2017, blood cells sorted by FACS (a sample)",
    tissue="blood",
    modality="10x 3', counts",
    sources=remote(f"{GITHUB}/stephenslab/fastTopics/8406f5f/data", FILE),
    licence="BSD-2-Clause (fastTopics); 10x Genomics states CC BY 4.0",
    citation="Zheng et al. 2017, Nature Communications 8:14049, doi:10.1038/ncomms14049",
    read=read,
    cells=3_874,
    notes="The types are what the cells were sorted for, not clusters: labels that no expression went into, and not"
    " all of which expression can tell apart (four kinds of CD4 T cells). The donor is that of pbmc68k_reduced.",
    coarse_types={
        "CD14+ Monocyte": "Monocyte",
        "CD19+ B": "B cell",
        "CD34+": "",
        "CD4+ T Helper2": "T cell",
        "CD4+/CD25 T Reg": "T cell",
        "CD4+/CD45RA+/CD25- Naive T": "T cell",
        "CD4+/CD45RO+ Memory": "T cell",
        "CD56+ NK": "NK cell",
        "CD8+ Cytotoxic T": "T cell",
        "CD8+/CD45RA+ Naive Cytotoxic": "T cell",
    },
    ready=LABEL,
)
