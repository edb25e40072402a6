"""A trained model is used where no trainer is installed (`pip install '.[use]'`), and in a notebook."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import anndata

from cellduality_plugin.inference import Model
from tests.inference.conftest import KEY, cells_of

USE = """
import sys

sys.modules.update(dict.fromkeys(("openrlhf", "deepspeed", "ray", "vllm")))  # None: cannot be imported
from typer.testing import CliRunner

from cellduality_plugin.cli import app
from cellduality_plugin.inference import Model

folder, file, out = sys.argv[1:]
for command in ("annotate", "calibrate", "generate", "perturb", "predict", "pack", "card"):
    assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0, command
assert Model.load(folder).checkpoint.notes["top_genes"] == 12
asked = CliRunner().invoke(app, ["annotate", file, "--model", folder, "--out", out, "--verify", "1"])
assert asked.exit_code == 0, asked.output
"""


def test_no_trainer_is_needed(trained, tmp_path):
    file, out = tmp_path / "new.h5ad", tmp_path / "out.h5ad"
    cells_of(["B", "T"]).write_h5ad(file)
    words = [sys.executable, "-W", "ignore", "-c", USE, trained, file, out]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert KEY in anndata.read_h5ad(out).obs


def test_a_notebook_has_a_loop_that_runs_already(trained):
    adata = cells_of(["B", "T"])

    async def cell() -> None:
        Model.load(trained).annotate(adata, verify=2, progress=False)

    asyncio.run(cell())
    assert KEY in adata.obs
