"""The benchmark of cells to sentences, at toy sizes: that it measures what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "recipes" / "benchmarks" / "cells.py"

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
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment in which cell2sentence is the stand-in."""
    package = tmp_path / "peer" / "cell2sentence"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "utils.py").write_text(STAND_IN)
    return {**os.environ, "PYTHONPATH": f"{ROOT}:{package.parent}", "OMP_NUM_THREADS": "1"}


def measure(environment: dict[str, str], *arguments: Any) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_sentences_are_compared_with_and_without_ties(environment):
    assert measure(environment, "equality", 300, 30) == {"without ties": True, "with ties": True, "cells": 200}
    peer = Path(environment["PYTHONPATH"].split(":")[1]) / "cell2sentence" / "utils.py"
    peer.write_text(STAND_IN.replace("-values", "values"))
    assert measure(environment, "equality", 300, 30) == {"without ties": False, "with ties": False, "cells": 200}


def test_a_file_is_written_converted_and_its_peak_told(environment, tmp_path):
    path = tmp_path / "atlas.h5ad"
    made = measure(environment, "generate", path, 5000, 400, 20)
    assert made["bytes"] == path.stat().st_size > 5000 * 20 * 8
    with h5py.File(path) as file:
        assert file["X/data"].shape == (5000 * 20,)
        assert file["X/data"][:].min() >= 1
        assert file["X/indices"][:].max() < 400
    found = measure(environment, "convert", path)
    assert found["cells"] == 5000
    assert 50 < found["peak_mb"] < 2000
    assert len(found["checked"]) == 3


def test_everything_is_measured_and_the_large_file_goes(environment, tmp_path):
    out = tmp_path / "bench"
    out.mkdir()
    command = [sys.executable, "-W", "ignore", str(SCRIPT), "all", "--out", str(out), "--sizes", "30", "--genes", "300"]
    command += ["--per-cell", "30", "--file-cells", "500", "--file-genes", "400", "--file-density", "0.05"]
    done = subprocess.run([*command, "--strict", "0"], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in out.iterdir()] == ["cells.json"]
    found = json.loads((out / "cells.json").read_text())
    assert [size["cells"] for size in found["sizes"]] == [30]
    assert found["sizes"][0]["non_zeros"] == 900
    assert found["file"]["non_zeros"] == 500 * 20
    for word in ("cell2sentence", "ours, the same sentences", "under 2 GB: yes", "equal sentences: yes"):
        assert word in done.stdout
