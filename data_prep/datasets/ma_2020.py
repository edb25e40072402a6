"""Ma 2020, mouse skin by SHARE-seq (GSE140203)."""

from __future__ import annotations

from data_prep.loading.dataset import Dataset, Files, geo
from data_prep.loading.draft import Draft, look_up, read_matrix, read_rows
from data_prep.splits import UNSEEN

COUNTS, LABELS = "GSM4156608_skin.late.anagen.rna.counts.txt.gz", "GSM4156597_skin_celltype.txt.gz"


def read(files: Files, variant: str) -> Draft:
    """Return the cells; barcodes hold commas in the counts and dots in the labels, and dots are kept."""
    values, cells, genes = read_matrix(files[COUNTS], "\t")
    draft = Draft(values, [cell.replace(",", ".") for cell in cells], genes)
    labels = {
        row["rna.bc"].replace(",", "."): row["celltype"]
        for row in read_rows(files[LABELS], "\t")
        if {"rna.bc", "celltype"} <= set(row)
    }
    draft.put(cell_type=look_up(labels, draft.cells, files[COUNTS]))
    draft.drop_copies()
    draft.drop_unlabelled()  # these are no cells of the publication: they go before anything is counted
    return draft.clean(max_genes=5000, max_mito=0.6, mito="mt-")


DATASET = Dataset(
    title="Ma 2020, skin (SHARE-seq)",
    species="mouse",
    tissue="skin",
    modality="SHARE-seq, the RNA half, counts",
    sources=(*geo("GSM4156608", COUNTS), *geo("GSM4156597", LABELS)),
    citation="Ma et al. 2020, Cell 183:1103, doi:10.1016/j.cell.2020.09.056",
    read=read,
    cells=34_135,
    test_cells=3_414,
    split=UNSEEN,
    notes="Barcodes hold commas in the counts and dots in the labels. 'Mix' (2,543 cells) is a label of the"
    " publication, and no type.",
)
