"""Bastidas-Ponce 2019, the developing mouse pancreas (GSE132188)."""

from __future__ import annotations

from data_prep.loading.dataset import Dataset, Files, geo
from data_prep.loading.draft import Draft, read_cells
from data_prep.splits import UNSEEN

FILE = "GSE132188_adata.h5ad.h5"


def read(files: Files, variant: str) -> Draft:
    draft = read_cells(files[FILE], {"cell_type": "clusters_fig6_broad_final"}, "counts", logs=True)
    clusters = draft.obs["cell_type"]
    draft.put(cell_type=[name if name.startswith("Ngn3") else name.split(" ")[-1] for name in clusters])
    return draft.clean(max_mito=5.0, mito="mt-")


DATASET = Dataset(
    title="Bastidas-Ponce 2019, developing pancreas",
    species="mouse",
    tissue="pancreas",
    modality="10x 3', counts",
    sources=geo("GSE132188", FILE),
    citation="Bastidas-Ponce et al. 2019, Development 146:dev173849, doi:10.1242/dev.173849",
    read=read,
    cells=35_481,
    test_cells=3_549,
    split=UNSEEN,
    notes="A type is the last word of a cluster's name, except for Ngn3 clusters, whose level is part of the type.",
)
