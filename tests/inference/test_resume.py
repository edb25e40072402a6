"""A run of real weights that was killed goes on: nothing that was kept is asked again, and the file is the same."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cellduality_plugin.chat import render, response_ids
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.inference.annotating import UNASSIGNED, Annotator
from cellduality_plugin.inference.checkpoint import pack, read_checkpoint
from tests.evaluation.audit.conftest import ANNOTATION, TYPES
from tests.inference.conftest import cells_of

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
