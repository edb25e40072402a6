"""The notebooks: nothing of a run is in them, and they run from top to bottom on the folder of one."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbclient
import nbformat
import pytest

from cellduality_plugin.tasks import get_task

FOLDER = Path(__file__).parents[2] / "recipes" / "notebooks"


@pytest.fixture(params=sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def notebook(request) -> nbformat.NotebookNode:
    return nbformat.read(request.param, as_version=4)


def test_no_output_is_kept_and_the_folders_stand_in_the_first_cell(notebook):
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


@pytest.mark.stack
def test_a_notebook_runs_from_top_to_bottom_and_shows_pictures(notebook, whole_run, tmp_path):
    left = shutil.ignore_patterns("checkpoints")  # calibrating changes the model's folder, which other tests share
    shutil.copytree(whole_run.folder, tmp_path / "cpu", symlinks=True, ignore=left)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    first.source = first.source.replace("../../runs", str(tmp_path))
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(FOLDER)}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ()) if "data" in output]
    assert any("image/png" in output["data"] for output in shown)
