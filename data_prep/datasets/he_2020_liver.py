"""He 2020, the liver of the adult human cell atlas (GSE159929)."""

from __future__ import annotations

import re

from data_prep.loading.dataset import GITHUB, Dataset, Files, geo, remote
from data_prep.loading.draft import Draft, look_up, read_matrix, read_rows
from data_prep.splits import INSTRUCTCELL

COUNTS, LABELS = "GSM4850582_Liver_Counts.csv.gz", "Annotation_AHCA_alltissues_meta.data_84363_cell.txt"
LABEL = "Cell_type_in_merged_data"
MARKER = re.compile(r"\s+[A-Z][A-Z0-9-]*$")  # the gene at the end of a label: B Cell CD79A


def read(files: Files, variant: str) -> Draft:
    """Return the cells; labels are of the atlas with all tissues merged, and name a cell by tissue and barcode."""
    draft = Draft(*read_matrix(files[COUNTS], ","))
    labels = read_rows(files[LABELS], "\t")
    key = next(iter(labels[0]))  # R left the header of the row names out, or empty
    table = {row[key]: row[LABEL] for row in labels if LABEL in row}
    draft.put(cell_type=look_up(table, [f"Liver_cDNA_{cell}" for cell in draft.cells], files[COUNTS]))
    draft.clean(max_genes=3000, max_mito=10.0)
    draft.put(cell_type=[MARKER.sub("", label) for label in draft.obs["cell_type"]])
    return draft


DATASET = Dataset(
    title="He 2020, liver",
    tissue="liver",
    modality="10x 3', counts",
    sources=(
        *geo("GSM4850582", COUNTS),
        *remote(f"{GITHUB}/bei-lab/scRNA-AHCA/master/Cell_barcode_and_corresponding_cell_types_of_AHCA", LABELS),
    ),
    citation="He et al. 2020, Genome Biology 21:294, doi:10.1186/s13059-020-02210-0",
    read=read,
    cells=2_839,
    test_cells=254,
    split=INSTRUCTCELL,
    notes="The labels are in another place and name a cell Liver_cDNA_BARCODE. Types of fewer than 20 cells are"
    " dropped first, then the marker gene at the end of a label (B Cell CD79A) is.",
)
