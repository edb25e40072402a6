"""Zheng 2017, 700 blood cells, as scanpy ships them."""

from data_prep.loading.dataset import Dataset, PackageFile
from data_prep.loading.draft import read_cells

FILE = "10x_pbmc68k_reduced.h5ad"

DATASET = Dataset(
    title="Zheng 2017, 700 blood cells",
    tissue="blood",
    modality="10x 3', 765 highly variable genes, log1p of counts per 10,000",
    sources=(PackageFile("scanpy", "1.11.5", "wheel", f"scanpy/datasets/{FILE}"),),
    licence="BSD-3-Clause (scanpy); 10x Genomics states CC BY 4.0",
    citation="Zheng et al. 2017, Nature Communications 8:14049, doi:10.1038/ncomms14049",
    read=lambda files, variant: read_cells(files[FILE], {"cell_type": "bulk_labels"}, "raw", logs=True),
    cells=700,
    notes="X is scaled, with negative values: the cells are read from raw.",
    coarse_types={
        "CD14+ Monocyte": "Monocyte",
        "CD19+ B": "B cell",
        "CD34+": "",
        "CD4+/CD25 T Reg": "T cell",
        "CD4+/CD45RA+/CD25- Naive T": "T cell",
        "CD4+/CD45RO+ Memory": "T cell",
        "CD56+ NK": "NK cell",
        "CD8+ Cytotoxic T": "T cell",
        "CD8+/CD45RA+ Naive Cytotoxic": "T cell",
        "Dendritic": "Dendritic cell",
    },
    as_file={"label_column": "bulk_labels", "matrix": "raw", "expression": "log1p"},
)
