"""Bell 2019, leukaemia cells of mouse marrow under I-BET-762 (GSE110894)."""

from __future__ import annotations

import zipfile
from pathlib import Path

from data_prep.loading.dataset import SENSITIVITY, Dataset, Files, geo, not_published
from data_prep.loading.draft import Draft, look_up, read_matrix
from data_prep.splits import UNSEEN

COUNTS, WELLS = "GSE110894_gene_count.csv.gz", "GSE110894_SingleCellInfo.xlsx"
LEADING_ROWS = 3
PLATE, WELL, SAMPLE = "Plate#", "Well position", "Sample name"


def read(files: Files, variant: str) -> Draft:
    """Return the cells; wells that are not RESISTANT are sensitive, as published EMPTY ones, too."""
    draft = Draft(*read_matrix(files[COUNTS], ","))
    samples = look_up(read_wells(files[WELLS]), draft.cells, files[COUNTS])
    draft.put(
        sensitivity=["" if not name else "Resistant" if "RESISTANT" in name else "Sensitive" for name in samples],
        drug="I-BET-762",
    )
    if variant == "corrected":
        draft.keep_cells(["EMPTY" not in name.upper() for name in samples], "EMPTY well, which holds no cell")
    return draft.clean("sensitivity")


def read_wells(path: Path) -> dict[str, str]:
    """Return the sample's name by PLATE_WELL; plate and sample are merged cells, a well has its barcode (A1=ACGT)."""
    import pandas

    try:
        sheet = pandas.read_excel(path, skiprows=LEADING_ROWS, dtype=str, engine="openpyxl")
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise not_published(path, f"unreadable sheet: {error}") from error
    for column in (PLATE, WELL, SAMPLE):
        if column not in sheet:
            raise not_published(path, f"no column {column!r} below {LEADING_ROWS} leading lines")
    sheet = sheet.dropna(how="all").ffill()
    wells = (f"{plate}_{str(well).split('=')[0]}" for plate, well in zip(sheet[PLATE], sheet[WELL], strict=True))
    return dict(zip(wells, sheet[SAMPLE].astype(str), strict=True))


DATASET = Dataset(
    title="Bell 2019, leukaemia of mouse marrow, I-BET-762",
    species="mouse",
    tissue="bone marrow",
    modality="plate-based, counts",
    sources=geo("GSE110894", COUNTS, WELLS),
    citation="Bell et al. 2019, Nature Communications 10:2723, doi:10.1038/s41467-019-10652-9",
    read=read,
    columns=("tissue", "drug", "sensitivity"),
    tasks=SENSITIVITY,
    cells=1_419,
    test_cells=143,
    split=UNSEEN,
    correction="EMPTY wells are left out; as published everything without RESISTANT in its name is Sensitive,"
    " EMPTY wells too.",
    notes="The sheet has three lines above its header, and merged cells.",
)
