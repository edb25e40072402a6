"""10x Genomics' 3k blood cells with the types of clusters, as clustifyrdata ships them."""

from __future__ import annotations

from data_prep.loading.dataset import GITHUB, Dataset, Files, remote
from data_prep.loading.draft import Draft, look_up, ready_cells
from data_prep.loading.r_data import RObject, read_r

MATRIX, CELLS, LABEL = "pbmc_matrix.rda", "pbmc_meta.rda", "classified"


def read(files: Files, variant: str) -> Draft:
    draft = (ready_cells(files, {"cell_type": LABEL}) or published(files)).logs_unless_whole()
    draft.drop_copies()
    draft.drop_unlabelled()
    return draft


def published(files: Files) -> Draft:
    """Return the cells; the counts are genes by cells."""
    values, genes, cells = read_r(files[MATRIX], lambda saved: saved["pbmc_matrix"].matrix())
    return Draft(values.T, cells, genes).put(cell_type=look_up(read_r(files[CELLS], types), cells, files[MATRIX]))


def types(saved: RObject) -> dict[str, str]:
    table = saved["pbmc_meta"]
    return dict(zip(table["row.names"].texts(), table[LABEL].texts(), strict=True))


DATASET = Dataset(
    title="10x Genomics, 3k blood cells",
    tissue="blood",
    modality="10x 3', counts",
    sources=remote(f"{GITHUB}/rnabioco/clustifyrdata/ea78504/data", MATRIX, CELLS),
    licence="MIT (clustifyrdata); 10x Genomics states CC BY 4.0",
    citation="10x Genomics 2016, 3k PBMCs from a healthy donor; types: Fu et al. 2020, F1000Research 9:223,"
    " doi:10.12688/f1000research.22969.2",
    read=read,
    cells=2_638,
    notes="The types are names given to clusters of the same counts. Beside pbmc_zheng2017_facs it is another study"
    " that shares lineages: --foreign pbmc_10x3k.",
    coarse_types={
        "B": "B cell",
        "CD14+ Mono": "Monocyte",
        "CD8 T": "T cell",
        "DC": "Dendritic cell",
        "FCGR3A+ Mono": "Monocyte",
        "Memory CD4 T": "T cell",
        "NK": "NK cell",
        "Naive CD4 T": "T cell",
        "Platelet": "",
    },
    ready=LABEL,
)
