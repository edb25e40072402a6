"""Tian 2019, five lung cancer lines, as SuperCell ships them, and how the lines answer to two drugs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.published.draft import Draft, Expression, file_of
from data_prep.published.h5 import ready_cells, whole_numbers
from data_prep.published.r_data import RObject, read_r

if TYPE_CHECKING:
    from anndata import AnnData

NAME = "lung_lines_10x"

IC50 = {
    "gefitinib": {"HCC827": -5.84, "A549": 1.46, "H1975": 5.32, "H838": 5.70},
    "afatinib": {"HCC827": -13.99, "H1975": -1.72, "A549": 1.65, "H838": 5.83},
}
"""Of the lines, log2 of uM, as the Genomics of Drug Sensitivity in Cancer (GDSC) measured it; H2228 is not there."""

SENSITIVE_BELOW = -1.0
"""The log2 IC50 below which a line counts as sensitive; H1975 under afatinib, at -1.72, is the nearest."""

NOT_SCREENED = "cell of a line whose sensitivity was not measured"


def load(files: Mapping[str, Path], variant: str) -> AnnData:
    """Return the cells; see :meth:`data_prep.registry.Dataset.load`. The numbers are documented as log-normalised."""
    found = ready_cells(files, NAME, "cell_line") or read_r(file_of(files, "cell_lines.rda"), published)
    values, cells, genes, lines = found
    expression: Expression = "counts" if whole_numbers(values) else "log2"
    draft = Draft(values, cells, genes)
    draft.put(cell_line=lines, tissue="lung")
    draft.drop_copies()
    kept: list[str] = draft.obs["cell_line"].tolist()
    asked = drugs(draft.cells.tolist(), kept)
    draft.put(drug=asked, sensitivity=[answer(*both) for both in zip(kept, asked, strict=True)])
    draft.keep_cells(draft.obs["sensitivity"] != "", NOT_SCREENED)
    return draft.finish(NAME, variant, "human", expression)


def published(saved: RObject) -> tuple[Any, Any, Any, Any]:
    """Return (cells by genes, names of the cells, of the genes, lines); the expression is genes by cells."""
    content = saved["cell_lines"]
    values, genes, cells = content["GE"].matrix()
    return values.T.tocsr(), cells, genes, content["meta"].texts()


def drugs(cells: Sequence[str], lines: Sequence[str]) -> list[str]:
    """Return the drug each cell is asked about: of a line's cells in the order of their names, the drugs in turn.

    One drug a cell, so that no cell trains under one drug and tests under the other.

    Examples
    --------
    >>> drugs(["c", "a", "b", "d"], ["A549", "A549", "A549", "H838"])
    ['gefitinib', 'gefitinib', 'afatinib', 'gefitinib']
    """
    turns: dict[str, Any] = {}
    chosen = {
        place: next(turns.setdefault(lines[place], cycle(IC50)))
        for place in sorted(range(len(cells)), key=lambda place: cells[place])
    }
    return [chosen[place] for place in range(len(cells))]


def answer(line: str, drug: str) -> str:
    """Return the sensitivity of a line to a drug; empty if it was not measured.

    Examples
    --------
    >>> answer("H1975", "gefitinib"), answer("H1975", "afatinib"), answer("H2228", "afatinib")
    ('Resistant', 'Sensitive', '')
    """
    measured = IC50[drug].get(line)
    return "" if measured is None else "Sensitive" if measured < SENSITIVE_BELOW else "Resistant"
