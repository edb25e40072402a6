"""A trained model behind a server, after its process was killed, without a trainer, and in a notebook."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cellduality_plugin.chat import render, response_ids
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.inference import Model
from cellduality_plugin.inference.annotating import UNASSIGNED, Annotator
from cellduality_plugin.inference.checkpoint import pack, read_checkpoint
from cellduality_plugin.policies.local import LocalModel
from tests.evaluation.audit.conftest import ANNOTATION, TYPES
from tests.inference.conftest import KEY, cells_of
from tests.refused import refused
from tests.scripted_server import Said, ScriptedServer


class ModelServer(ScriptedServer):
    """Speaks as vLLM does, of real weights."""

    def __init__(self, model: LocalModel) -> None:
        super().__init__()
        self._model, self._turn = model, threading.Lock()

    def usual(self, path: str, body: dict[str, Any]) -> Said:
        if path.endswith("/models"):
            return said({"data": [{"id": "sft", "max_model_len": 256}]})
        tokens = body["prompt"]
        with self._turn:
            if "prompt_logprobs" in body:
                scores = asyncio.run(self._model.ask(tokens[:1], target=tokens[1:]))
                found = [{str(token): {"logprob": score}} for token, score in zip(tokens[1:], scores, strict=True)]
                return said({"choices": [{"text": "", "token_ids": [], "prompt_logprobs": [None, *found]}]})
            how = {"limit": body["max_tokens"], "temperature": body["temperature"], "seed": body.get("seed", 0)}
            return said({"choices": [{"text": "", "token_ids": asyncio.run(self._model.ask(tokens, **how))}]})


def said(content: dict[str, Any]) -> Said:
    return Said(body=json.dumps(content).encode())


@pytest.fixture
def server(trained) -> Iterator[ModelServer]:
    """A running server that has the packed model, called ``sft``."""
    server = ModelServer(LocalModel.load(trained, max_model_len=256, max_new_tokens=24))
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("verify", [0, 2])
def test_labels_are_those_of_this_process(trained, server, verify):
    adata = cells_of(["B", "T", "NK"])
    here, there = (
        Model.load(trained, backend=backend).annotate(adata, verify=verify, batch=2, copy=True, progress=False)
        for backend in ("transformers", f"{server.url}#sft")
    )
    columns = [KEY, f"{KEY}_votes", f"{KEY}_reasoning"]
    assert here.obs[columns].equals(there.obs[columns])
    assert there.obsm[f"{KEY}_probability"] == pytest.approx(here.obsm[f"{KEY}_probability"], abs=1e-4)


def test_a_model_that_the_server_lacks_is_refused_before_a_cell_is_asked(trained, server):
    with refused("endpoint-failed"):
        Model.load(trained, backend=server.url).annotate(cells_of(["B"]), progress=False)


@pytest.mark.parametrize("end", [Said(400), Said(401), Said(body=b"no JSON")])
def test_a_server_that_gives_no_more_answers_ends_the_command(trained, server, end):
    server.script = [server.usual("/models", {}), *[end] * 1000]
    with refused("endpoint-failed"):
        Model.load(trained, backend=f"{server.url}#sft").annotate(cells_of(["B", "T"]), progress=False)


KINDS = [*TYPES, "T"] * 20  # cells of a type are equal: so are their questions
SETTINGS = {"verify": 3, "batch": 4}
ANNOTATE = (
    "import sys, torch; torch.set_num_threads(1)\n"
    "from pathlib import Path; from cellduality_plugin.inference.annotating import Annotator\n"
    "from cellduality_plugin.inference.checkpoint import read_checkpoint\n"
    "model, source, out = map(Path, sys.argv[1:])\n"
    f"Annotator(read_checkpoint(model), settings={SETTINGS}).of_file(source, out)"
)


@pytest.fixture(scope="module")
def taught(trained, data, tmp_path_factory) -> Path:
    """The packed model after some steps on its own rows: it answers in form, and is not sure of the type."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = shutil.copytree(trained, tmp_path_factory.mktemp("taught") / "m")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    rows = [row for row in read_jsonl(data / "sft.jsonl") if row["datasource"] == ANNOTATION]
    answers = [[*response_ids(tokenizer, row["output"]), tokenizer.eos_token_id] for row in rows]
    tokens = torch.tensor([render(tokenizer, row["input"]) + answer for row, answer in zip(rows, answers, strict=True)])
    labels = torch.full_like(tokens, -100)
    labels[:, -len(answers[0]) :] = torch.tensor(answers)
    for _ in range(60):
        model(input_ids=tokens, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


def kept_by(path: Path) -> list[str]:
    """Return the cells that a file of answers holds, in order."""
    return [key for batch in list(read_jsonl(path))[1:] for key in batch]


def test_a_killed_run_asks_nothing_twice_and_writes_the_same_bytes_and_a_repacked_model_is_asked_anew(
    taught, data, tmp_path
):
    source, out, answers = tmp_path / "new.h5ad", tmp_path / "out.h5ad", tmp_path / "out.answers"
    cells_of(KINDS).write_h5ad(source)
    model = shutil.copytree(taught, tmp_path / "m")

    def annotate() -> bytes:
        table = Annotator(read_checkpoint(model), settings=SETTINGS).of_file(source, out).asked
        assert table["label"].ne(UNASSIGNED).mean() > 0.5
        assert table["votes"].nunique() > 1, "draws differ: nothing here is trivially the same"
        return out.read_bytes()

    def killed(after: int) -> bytes:
        out.unlink(missing_ok=True)
        process = subprocess.Popen([sys.executable, "-c", ANNOTATE, str(model), str(source), str(out)])
        while not (answers.exists() and answers.read_bytes().count(b"\n") > after):
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL
        assert not out.exists()
        os.link(answers, tmp_path / "seen")  # the file of answers goes away at the end of a run: a second name of it
        return answers.read_bytes()

    whole = annotate()
    assert not answers.exists()
    before = killed(after=3)
    first = kept_by(answers)
    assert 8 <= len(first) < len(KINDS)
    assert annotate() == whole
    assert (tmp_path / "seen").read_bytes().startswith(before)
    asked = kept_by(tmp_path / "seen")
    assert len(asked) == len(set(asked)) == len(KINDS), "each cell once, by one of the two runs"

    (tmp_path / "seen").unlink()
    before = killed(after=2)
    pack(model, data, None, max_len=256, max_new_tokens=23)
    annotate()
    again = (tmp_path / "seen").read_bytes()
    assert again.splitlines()[0] != before.splitlines()[0], "what was made otherwise is not taken over"
    assert sorted(kept_by(tmp_path / "seen")) == sorted(asked)


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
