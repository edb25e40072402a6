"""The notebooks run from top to bottom on the folder of a run, as a reader runs them."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbclient
import nbformat
import pytest

pytestmark = pytest.mark.stack

NOTEBOOKS = sorted((Path(__file__).parents[2] / "recipes" / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom_and_shows_pictures(path, whole_run, tmp_path):
    left = shutil.ignore_patterns("checkpoints")  # calibrating changes the model's folder, which other tests share
    shutil.copytree(whole_run.folder, tmp_path / "cpu", symlinks=True, ignore=left)
    notebook = nbformat.read(path, as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert "../../runs/cpu" in first.source
    first.source = first.source.replace("../../runs", str(tmp_path))
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(path.parent)}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ()) if "data" in output]
    assert any("image/png" in output["data"] for output in shown)
