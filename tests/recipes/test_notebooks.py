"""The notebooks without running them (tests/stack does): nothing of a run is in them."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from cellduality_plugin.tasks import get_task

FOLDER = Path(__file__).parents[2] / "recipes" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_output_is_kept_and_the_folders_stand_in_the_first_cell(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    assert [place for place, cell in enumerate(cells) if "../../runs" in cell.source] == [0]
    assert 'RUN = Path("../../runs/cpu")' in cells[0].source


def test_the_pair_shows_a_quarter_and_rebuilds_the_rest(cell):
    pair = get_task(f"{FOLDER / 'panel.py'}:Panel")
    row = pair.example(cell, hidden=1.0, labelled=False, rng=None)
    assert row.inputs["cell"] + row.unknown == cell.genes
    assert len(row.inputs["cell"]) == len(cell.genes) // 4
    assert (row.gold, row.known) == (None, {"length": "6"})
