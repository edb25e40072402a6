"""The notebooks without running them: nothing of a run is in them, and what they name exists."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
import typer.main

from cellduality_plugin.cli import app
from cellduality_plugin.tasks import get_task

FOLDER = Path(__file__).parents[2] / "recipes" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list[Any]:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def commands(tree: ast.AST) -> list[list[str]]:
    """The texts in each list that begins with CELLDUALITY, and in what is added to it."""
    found: dict[str, list[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AugAssign) and isinstance(node.value, ast.List):
            name = ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
            begins = ast.unparse(node.value.elts[0]) == "CELLDUALITY"
            if begins or name in found:
                words = [each.value for each in node.value.elts if isinstance(each, ast.Constant)]
                found.setdefault(name, []).extend(map(str, words))
    return list(found.values())


def test_there_are_three():
    assert len(NOTEBOOKS) == 3


@notebooks
def test_no_output_is_kept_and_the_folders_stand_in_the_first_cell(path):
    cells = code_cells(path)
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    assert [place for place, cell in enumerate(cells) if "../../runs" in cell.source] == [0]
    assert 'RUN = Path("../../runs/cpu")' in cells[0].source


@notebooks
def test_the_code_is_clean(path):
    for words in (["check"], ["format", "--check"]):
        done = subprocess.run([sys.executable, "-m", "ruff", *words, str(path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@notebooks
def test_what_is_imported_and_which_options_are_given_exist(path):
    tree = ast.parse("\n".join(cell.source for cell in code_cells(path)))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("cellduality_plugin"):
            module = importlib.import_module(str(node.module))
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
    for words in commands(tree):
        command: Any = typer.main.get_command(app)
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        known = {name for option in command.params for name in option.opts}
        assert {word for word in words if word.startswith("--")} <= known


def test_the_commands_of_the_notebooks_are_found():
    tree = ast.parse("\n".join(cell.source for path in NOTEBOOKS for cell in code_cells(path)))
    assert [words[0] for words in commands(tree)] == ["data", "audit"]


def test_the_pair_shows_a_quarter_and_rebuilds_the_rest(cell):
    pair = get_task(f"{FOLDER / 'panel.py'}:Panel")
    row = pair.example(cell, hidden=1.0, labelled=False, rng=None)
    assert row.inputs["cell"] + row.unknown == cell.genes
    assert len(row.inputs["cell"]) == len(cell.genes) // 4
    assert (row.gold, row.known) == (None, {"length": "6"})
