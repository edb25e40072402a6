"""A trained model is used where no trainer is installed (`pip install '.[use]'`), and in a notebook."""

from __future__ import annotations

import asyncio
import subprocess
import sys

from cellduality_plugin.inference import Model
from tests.inference.conftest import KEY, cells_of

USE = """
import sys

sys.modules.update(dict.fromkeys(("openrlhf", "deepspeed", "ray", "vllm")))  # None: cannot be imported
from typer.testing import CliRunner

from cellduality_plugin.cli import app
from cellduality_plugin.inference import Model

for command in ("annotate", "calibrate", "generate", "perturb", "predict", "pack", "card"):
    assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0, command
assert Model.load(sys.argv[1]).checkpoint.notes["top_genes"] == 12
assert not {"torch", "transformers"}.intersection(sys.modules), "only asking takes them"
"""


def test_no_trainer_is_needed(trained):
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", USE, str(trained)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_notebook_has_a_loop_that_runs_already(trained):
    adata = cells_of(["B", "T"])

    async def cell() -> None:
        Model.load(trained).annotate(adata, verify=2, progress=False)

    asyncio.run(cell())
    assert KEY in adata.obs
