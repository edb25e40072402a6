"""The benchmark of cells to sentences, at toy sizes: that it measures what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "recipes" / "benchmarks"

# The peer's function as it works, for where the package itself is not installed: one cell after the other.
STAND_IN = """
import numpy as np
from sklearn.utils import shuffle
def generate_sentences(adata, vocab, delimiter=" ", random_state=42):
    np.random.seed(random_state)
    names, sentences = list(vocab), []
    for row in adata.X:
        columns, values = shuffle(row.indices, row.data)
        sentences.append(delimiter.join(names[column] for column in columns[np.argsort(-values, kind="stable")]))
    return sentences
"""


@pytest.fixture
def peer(tmp_path: Path) -> Path:
    """A module that stands in for cell2sentence, in a folder of its own."""
    module = tmp_path / "peer" / "cell2sentence" / "utils.py"
    module.parent.mkdir(parents=True)
    module.write_text(STAND_IN)
    return module


def run(peer: Path, *words: str) -> str:
    """Return what a program prints that imports the benchmark and the stand-in."""
    paths = {"PYTHONPATH": f"{ROOT}:{FOLDER}:{peer.parents[1]}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", *words]
    done = subprocess.run(command, env={**os.environ, **paths}, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_sentences_are_compared_with_and_without_ties(peer):
    program = "import cells; print(cells.equality(300, 30))"
    assert run(peer, "-c", program) == "{'without ties': True, 'with ties': True, 'cells': 200}\n"
    peer.write_text(STAND_IN.replace("-values", "values"))
    assert run(peer, "-c", program) == "{'without ties': False, 'with ties': False, 'cells': 200}\n"


def test_a_file_is_written_block_by_block(peer, tmp_path):
    path = tmp_path / "atlas.h5ad"
    run(peer, "-c", f"import cells, pathlib; cells.generate(pathlib.Path({str(path)!r}), 5000, 400, 20)")
    with h5py.File(path) as file:
        assert file["X/data"].shape == (5000 * 20,)
        assert file["X/data"][:].min() >= 1
        assert file["X/indices"][:].max() < 400


def test_everything_is_measured_and_the_large_file_goes(peer, tmp_path):
    out = tmp_path / "bench"
    out.mkdir()
    command = f"{FOLDER / 'cells.py'} all --out {out} --sizes 30 --genes 300 --per-cell 30"
    printed = run(peer, *f"{command} --file-cells 500 --file-genes 400 --file-density 0.05 --strict 0".split())
    assert [path.name for path in out.iterdir()] == ["cells.json"]
    found = json.loads((out / "cells.json").read_text())
    assert [size["cells"] for size in found["sizes"]] == [30]
    assert found["sizes"][0]["non_zeros"] == 900
    assert (found["file"]["cells"], found["file"]["non_zeros"]) == (500, 500 * 20)
    assert 50 < found["file"]["peak_mb"] < 2000
    for word in ("cell2sentence", "ours, the same sentences", "under 2 GB: yes", "equal sentences: yes"):
        assert word in printed
