"""Bell 2019, leukaemia cells of mouse marrow under I-BET-762 (GSE110894)."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cellduality_plugin.errors import CellDualityError
from data_prep.published.draft import Draft, file_of, look_up
from data_prep.published.tables import open_table, read_matrix

if TYPE_CHECKING:
    from anndata import AnnData

COUNTS, WELLS = "GSE110894_gene_count.csv", "GSE110894_SingleCellInfo.xlsx"
LEADING_ROWS = 3
PLATE, WELL, SAMPLE = "Plate#", "Well position", "Sample name"
EMPTY, RESISTANT = "EMPTY", "RESISTANT"
EMPTY_WELL = "EMPTY well, which holds no cell"


def load(files: Mapping[str, Path], variant: str) -> AnnData:
    """Return the cells; see :meth:`data_prep.registry.Dataset.load`.

    A well is resistant if its sample's name says so, and sensitive otherwise. As published that makes EMPTY wells
    sensitive; corrected, they are left out.
    """
    path = file_of(files, COUNTS)
    cells, genes, values = read_matrix(open_table(path, ","))
    draft = Draft(values, cells, genes)
    samples = look_up(read_wells(file_of(files, WELLS)), draft.cells, str(path))
    draft.put(
        sensitivity=["" if not name else "Resistant" if RESISTANT in name else "Sensitive" for name in samples],
        drug="I-BET-762",
        tissue="bone marrow",
    )
    if variant == "corrected":
        draft.keep_cells(np.array([EMPTY not in name.upper() for name in samples], dtype=bool), EMPTY_WELL)
    draft.drop_copies()
    draft.filter()
    draft.drop_labels("sensitivity")
    return draft.finish("gse110894", variant, "mouse", "counts")


def read_wells(path: Path) -> dict[str, str]:
    """Return the sample's name by PLATE_WELL.

    Three lines stand above the header; plate and sample are merged cells, of which only the first holds the value; a
    well is written with its barcode, A1=ACGTACGT.

    Raises
    ------
    CellDualityError
        If the sheet is no .xlsx file or lacks a column.
    """
    import pandas

    try:
        sheet = pandas.read_excel(path, skiprows=LEADING_ROWS, dtype=str, engine="openpyxl")
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise CellDualityError(
            f"unreadable sheet ({error})", where=str(path), mend="remove it and fetch the set again"
        ) from error
    lacking = [column for column in (PLATE, WELL, SAMPLE) if column not in sheet]
    if lacking:
        raise CellDualityError(
            f"no column {lacking[0]!r} below {LEADING_ROWS} leading lines",
            where=str(path),
            mend="remove it and fetch the set again",
        )
    sheet = sheet.dropna(how="all").ffill()
    wells = (f"{plate}_{str(well).split('=')[0]}" for plate, well in zip(sheet[PLATE], sheet[WELL], strict=True))
    return dict(zip(wells, sheet[SAMPLE].astype(str), strict=True))
