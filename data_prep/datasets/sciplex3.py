"""Srivatsan 2020, sci-Plex3: 188 compounds on three cell lines, as scPerturb has it."""

from __future__ import annotations

from cellduality_plugin.perturbations import CONTROL
from data_prep.datasets.l1000 import dose_of
from data_prep.loading.dataset import RESPONSE, Dataset, Files, RemoteFile
from data_prep.loading.draft import NO_LABEL, Draft, read_cells
from data_prep.splits import PublishedSplit

HELD_OUT = (
    "Dacinostat", "CUDC-907", "Givinostat", "CUDC-101", "Pirarubicin", "Hesperadin", "Tanespimycin", "Trametinib",
    "Raltitrexed",
)  # fmt: skip
"""chemCPA's ``ood`` of ``split_ood_finetuning`` (preprocessing/5_sciplex_ood_splits.py), the first words of names."""
FILE = "SrivatsanTrapnell2020_sciplex3.h5ad"


def read(files: Files, variant: str) -> Draft:
    """Return the cells; ``control`` under ``perturbation`` is the vehicle, and doses are in nM."""
    draft = read_cells(files[FILE], {"drug": "perturbation", "cell_line": "cell_line", "dose": "dose_value"})
    for column in ("drug", "cell_line"):
        draft.keep_cells([value not in ("", "nan") for value in draft.obs[column]], NO_LABEL)
    drugs, doses = draft.obs["drug"], [dose_of(dose, "nM", digits=10) for dose in draft.obs["dose"]]
    return draft.put_drugs(drugs, doses, control=drugs == CONTROL).filter()


DATASET = Dataset(
    title="sci-Plex3, 188 compounds on three cell lines",
    tissue="cell lines",
    modality="sci-RNA-seq3, counts",
    sources=(
        RemoteFile(
            f"https://zenodo.org/records/13350497/files/{FILE}?download=1",
            FILE,
            checksum="md5:d1f51b9f8de35ca07638132539da9a99",
        ),
    ),
    licence="CC BY 4.0 (scPerturb)",
    citation="Srivatsan et al. 2020, Science 367:45, doi:10.1126/science.aax6234; scPerturb: Peidli et al. 2024,"
    " doi:10.1038/s41592-023-02144-y",
    read=read,
    columns=("drug", "perturbation", "dose", "cell_line"),
    tasks=RESPONSE,
    cells=799_317,
    split=PublishedSplit(
        held_out={"drug": HELD_OUT},
        first_word=True,
        unknown="the drugs are chemCPA's; its test cells of other drugs were drawn from a file of its own.",
    ),
    notes="'control' in `perturbation` is the vehicle; doses are in nM. Filters"
    " leave about 650,000 cells in publications.",
)
