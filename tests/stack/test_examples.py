"""The packages beside us, in environments of their own: a trained model behind vLLM's server, verifiers, cell-eval."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import anndata
import pandas
import pytest

from cellduality_plugin.files import read_jsonl
from tests.stack.conftest import CELLDUALITY, MAX_LEN, ROOT, adata_of, change, endpoint

pytestmark = [pytest.mark.stack, pytest.mark.long]

EXAMPLES = ROOT / "recipes" / "examples"


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """Return a function that installs packages into a new environment; it gives the folder of its commands."""

    def install(*packages: str) -> Path:
        folder = tmp_path_factory.mktemp("environment")
        subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, folder / "venv"], check=True)
        programs = folder / "venv" / "bin"
        subprocess.run(["uv", "pip", "install", "--quiet", "--python", programs / "python", *packages], check=True)
        return programs

    return install


def test_a_trained_model_answers_behind_a_server_and_pays_the_rollouts_of_verifiers(
    prepared, serve_policy, start, installed, tmp_path
):
    model, data = prepared / "sft", prepared / "data"
    rows = [row for row in read_jsonl(data / "cells.jsonl") if row["id"].startswith("pbmc68k_reduced")][:12]
    adata_of({row["id"]: row["genes"] for row in rows}).write_h5ad(cells := tmp_path / "cells.h5ad")
    with serve_policy(model, tmp_path / "policy") as url:
        labels = []
        for number, backend in enumerate(("transformers", f"{url}#sft")):
            out = tmp_path / f"{number}.h5ad"
            words = ("--model", str(model), "--verify", "0", "--backend", backend, "--out", str(out))
            start(tmp_path / f"run{number}", *CELLDUALITY, "annotate", str(cells), *words).ends_well()
            labels.append(anndata.read_h5ad(out).obs["cell_type_cellduality"].tolist())
        # The engine computes in another precision, which may decide between two labels that are nearly as likely.
        assert sum(map(str.__eq__, *labels)) >= len(rows) - 1, labels

        change(data / "cellduality.json", {}, endpoint(url, model))
        programs = installed("verifiers==0.4.0", "transformers", "typer", "aiohttp", "jinja2")
        evaluation = [
            programs / "vf-eval", "cellduality_taskset", "--env.taskset.data", data, "-m", "sft", "-n", 4, "-r", 2,
            "--no-push", "--client.base-url", url, "--env.agent.harness.id", "null", "--env.agent.runtime.type",
            "subprocess", "--env.agent.max-output-tokens", 40, "-o", tmp_path / "verifiers",
        ]  # fmt: skip
        asked = os.environ | {"PYTHONPATH": f"{ROOT}:{EXAMPLES}", "OPENAI_API_KEY": "none"}
        done = subprocess.run([*map(str, evaluation)], env=asked, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    [traces] = (tmp_path / "verifiers").rglob("traces.jsonl")
    episodes = list(read_jsonl(traces))
    paid = [trace["rewards"]["cellduality"]["score"] for each in episodes for trace in each["traces"]]
    assert len(paid) == 8
    assert not any(each["errors"] for each in episodes)
    assert 0 < max(paid) <= 1


def test_cell_eval_compares_what_a_run_has_written(whole_run, cellduality, installed, tmp_path):
    words = ("--model", f"GRPO={whole_run.folder / 'grpo'}", "--data", whole_run.folder / "data", "--out", "test")
    lengths = ("--max-len", MAX_LEN, "--max-new-tokens", 40, "--samples", 2, "--real-cells")
    cellduality(tmp_path / "run", "evaluate", *words, *lengths)
    script, cells = EXAMPLES / "for_cell_eval.py", tmp_path / "run" / "test" / "predictions" / "GRPO.h5ad"
    out = tmp_path / "out"
    subprocess.run([sys.executable, str(script), str(cells), "--out", str(out)], check=True)
    files = ("-ap", out / "pred.h5ad", "-ar", out / "real.h5ad", "-o", out)
    program = installed("cell-eval==0.8.2") / "cell-eval"
    subprocess.run([program, "run", *files, "--pert-col", "state", "--control-pert", "control"], check=True)
    found = pandas.read_csv(out / "results.csv")
    assert found["perturbation"].tolist() == ["cytokine IFN-beta"]
    assert -1 <= found["pearson_delta"].item() <= 1
