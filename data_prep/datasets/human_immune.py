"""Domínguez Conde 2022, immune cells across human tissues, as CELLxGENE has them."""

from data_prep.loading.dataset import CollectionFile, Dataset
from data_prep.loading.draft import read_cells
from data_prep.splits import PublishedSplit

FILE = "global.h5ad"
COLUMNS = {"cell_type": "cell_type", "tissue": "tissue", "donor": "donor_id"}

DATASET = Dataset(
    title="Domínguez Conde 2022, immune cells across tissues",
    tissue="16 tissues",
    modality="10x 3' and 5', counts",
    sources=(CollectionFile("62ef75e4-cbea-454e-a0ce-998ec40223d3", "Global", FILE),),
    licence="CC BY 4.0 (CELLxGENE)",
    citation="Domínguez Conde et al. 2022, Science 376:eabl5197, doi:10.1126/science.abl5197",
    read=lambda files, variant: read_cells(files[FILE], COLUMNS, "counts", symbols="feature_name").clean(),
    columns=("cell_type", "tissue", "donor"),
    cells=329_762,
    split=PublishedSplit(unknown="Cell2Sentence does not say which cells it used, nor on which it tested."),
    notes="Cell2Sentence used 273,502 of these cells in 35 types and does not say which; all are loaded here. Genes"
    " are named by Ensembl id, with the symbol beside it.",
)
