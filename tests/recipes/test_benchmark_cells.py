"""The benchmark of cells to sentences, at toy sizes: that it measures what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

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


@pytest.mark.parametrize(("ranked_by", "same"), [("-values", True), ("values", False)])
def test_sentences_are_compared_with_and_without_ties(ranked_by, same, benchmarks, monkeypatch):
    peer = ModuleType("cell2sentence.utils")
    exec(STAND_IN.replace("-values", ranked_by), vars(peer))
    monkeypatch.setitem(sys.modules, "cell2sentence", ModuleType("cell2sentence"))
    monkeypatch.setitem(sys.modules, peer.__name__, peer)
    assert benchmarks("cells").equality(300, 30) == {"without ties": same, "with ties": same, "cells": 200}


def test_a_file_is_written_block_by_block(benchmarks, tmp_path):
    path = tmp_path / "atlas.h5ad"
    benchmarks("cells").generate(path, 5000, 400, 20)
    with h5py.File(path) as file:
        assert file["X/data"].shape == (5000 * 20,)
        assert file["X/data"][:].min() >= 1
        assert file["X/indices"][:].max() < 400


def test_everything_is_measured_and_the_large_file_goes(tmp_path):
    out, peer = tmp_path / "bench", tmp_path / "peer" / "cell2sentence" / "utils.py"
    for folder in (out, peer.parent):
        folder.mkdir(parents=True)
    peer.write_text(STAND_IN)
    words = f"all --out {out} --sizes 30 --genes 300 --per-cell 30 --file-cells 500 --file-genes 400"
    command = [sys.executable, "-W", "ignore", str(FOLDER / "cells.py"), *words.split()]
    command += ["--file-density", "0.05", "--strict", "0"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{peer.parents[1]}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    printed = done.stdout
    assert [path.name for path in out.iterdir()] == ["cells.json"]
    found = json.loads((out / "cells.json").read_text())
    assert [size["cells"] for size in found["sizes"]] == [30]
    assert found["sizes"][0]["non_zeros"] == 900
    assert (found["file"]["cells"], found["file"]["non_zeros"]) == (500, 500 * 20)
    assert 50 < found["file"]["peak_mb"] < 2000
    for word in ("cell2sentence", "ours, the same sentences", "under 2 GB: yes", "equal sentences: yes"):
        assert word in printed
