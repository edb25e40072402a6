"""Tian 2019, five lung cancer lines, as SuperCell ships them, and how the lines answer to two drugs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import numpy as np

from data_prep.loading.dataset import GITHUB, SENSITIVITY, Dataset, Files, remote
from data_prep.loading.draft import Draft, ready_cells
from data_prep.loading.r_data import RObject, read_r
from data_prep.splits import PublishedSplit

FILE, LABEL = "cell_lines.rda", "cell_line"

IC50 = {
    "gefitinib": {"HCC827": -5.84, "A549": 1.46, "H1975": 5.32, "H838": 5.70},
    "afatinib": {"HCC827": -13.99, "H1975": -1.72, "A549": 1.65, "H838": 5.83},
}
"""Of the lines, log2 of uM, as the Genomics of Drug Sensitivity in Cancer (GDSC) measured it; H2228 is not there."""

SENSITIVE_BELOW = -1.0
"""The log2 IC50 below which a line counts as sensitive; H1975 under afatinib, at -1.72, is the nearest."""

NOT_SCREENED = "cell of a line whose sensitivity was not measured"


def read(files: Files, variant: str) -> Draft:
    """Return the cells; the numbers are documented as log-normalised."""
    draft = (ready_cells(files, {"cell_line": LABEL}) or read_r(files[FILE], published)).logs_unless_whole()
    draft.drop_copies()
    lines = draft.obs["cell_line"].tolist()
    asked = drugs(draft.cells.tolist(), lines)
    draft.put(drug=asked, sensitivity=[answer(*both) for both in zip(lines, asked, strict=True)])
    draft.keep_cells(draft.obs["sensitivity"] != "", NOT_SCREENED)
    return draft


def published(saved: RObject) -> Draft:
    """Return the cells; the expression is genes by cells."""
    content = saved["cell_lines"]
    values, genes, cells = content["GE"].matrix()
    return Draft(values.T, cells, genes).put(cell_line=content["meta"].texts())


def drugs(cells: Sequence[str], lines: Sequence[str]) -> list[str]:
    """Return the drug each cell is asked about: of a line's cells in the order of their names, the drugs in turn.

    One drug a cell, so that no cell trains under one drug and tests under the other.
    """
    turns = {line: cycle(IC50) for line in lines}
    chosen = {place: next(turns[lines[place]]) for place in np.argsort(cells, kind="stable").tolist()}
    return [chosen[place] for place in range(len(cells))]


def answer(line: str, drug: str) -> str:
    """Return the sensitivity of a line to a drug; empty if it was not measured."""
    measured = IC50[drug].get(line)
    return "" if measured is None else "Sensitive" if measured < SENSITIVE_BELOW else "Resistant"


DATASET = Dataset(
    title="Tian 2019, five lung cancer lines, gefitinib and afatinib",
    tissue="lung",
    modality="10x 3', 2,000 genes, log-normalised counts",
    sources=remote(f"{GITHUB}/cran/SuperCell/141ae9293e869f19e6182013f293b7a044309153/data", FILE),
    licence="GPL-3 (SuperCell, whose file is read and never imported)",
    citation="Tian et al. 2019, Nature Methods 16:479, doi:10.1038/s41592-019-0425-8; IC50 (GDSC): Iorio et al."
    " 2016, Cell 166:740, doi:10.1016/j.cell.2016.06.017",
    read=read,
    columns=("tissue", "drug", "sensitivity", "cell_line"),
    tasks=SENSITIVITY,
    cells=1_959,
    split=PublishedSplit(held_out={LABEL: ("H1975", "H838")}, unknown="no publication splits this set."),
    notes="No cell saw a drug: sensitivity is the measured IC50 of its line, constant within line and drug. Hold"
    " whole lines out, or the line is learnt instead. Every cell is asked about one of two drugs. The 393 cells of"
    " H2228, which was not screened, are left out.",
    ready=LABEL,
)
