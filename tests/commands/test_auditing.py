"""`cellduality audit` from the flags to the files; what is wrong is told before a model loads."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cellduality_plugin.cli import app
from cellduality_plugin.commands.auditing import audited, write_audit
from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.audit.engine import Players
from cellduality_plugin.evaluation.audit.run import AuditSettings, read_audit
from cellduality_plugin.parsing import join_response
from cellduality_plugin.tasks import TASKS
from data_prep.rows import audit_rows
from tests.play import Choosing


class OneAnswer(Choosing):
    """Says the same to every question."""

    def __init__(self, answer: str) -> None:
        self.answer = answer

    async def generate(self, prompt: str, *, seed: int | None = None, temperature: float | None = None) -> str:
        return join_response(self.answer)

    async def log_probs(self, prompt: str, response: str, *, given: str = "") -> list[float]:
        return [-1.0]


@pytest.fixture
def folder(tmp_path: Path, make_config, vocabulary, cell) -> Path:
    """A prepared folder of one cell."""
    import numpy as np

    from cellduality_plugin.files import write_jsonl

    make_config()
    rows = audit_rows(
        [cell], list(TASKS.values()), vocabulary, count=1, hidden=0.25, masks=4, rng=np.random.default_rng(0)
    )
    write_jsonl(tmp_path / "audit.jsonl", rows)
    return tmp_path


def run(folder: Path, *words: str) -> None:
    flags = ["--model", str(folder / "model"), "--data", str(folder), "--out", str(folder / "out"), *words]
    done = CliRunner().invoke(app, ["audit", *flags])
    assert done.exception is not None
    raise done.exception


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no checkpoint"),
        (("--config", "elsewhere.json"), "cannot read the configuration"),
        (("--rewards", "rwjs"), "no reward 'rwjs'"),
        (("--rewards", "two*posterior"), "no reward 'two'"),
        (("--rewards", "posterior^"), r"'' in 'posterior\^' is no number above 0"),
        (("--rewards", "oracle,missing.py:Mine"), "missing.py"),
    ],
)
def test_mistakes_are_told_before_a_model_loads(words, message, folder):
    with pytest.raises(CellDualityError, match=message):
        run(folder, *words)
    assert not (folder / "out").exists()


def test_data_of_an_older_version_is_told(folder):
    (folder / "audit.jsonl").unlink()
    with pytest.raises(CellDualityError, match=r"no cells to audit .*: prepare the data again"):
        run(folder)


@pytest.mark.parametrize("words", [("--cells", "1"), ("--samples", "1"), ("--temperature", "0"), ("--masks", "-1")])
def test_numbers_out_of_range_are_refused(words, folder):
    with pytest.raises(SystemExit) as ended:
        run(folder, *words)
    assert ended.value.code == 2


def test_numbers_words_and_a_picture_are_written(folder):
    @contextmanager
    def opened():
        policy = OneAnswer("T")
        yield Players(policy, policy, policy, len, len)

    settings = AuditSettings(rewards=("oracle", {"likelihood": 1.0, "oracle": 2.0}), resamples=20)
    content = audited(folder, Config.load(folder / "cellduality.json"), settings, opened)
    write_audit(content, folder / "out")
    found = read_audit(folder / "out" / "audit.json")
    assert found["findings"] == json.loads(json.dumps(content["findings"]))
    assert {each["task"] for each in found["findings"]} == set(TASKS)
    page = (folder / "out" / "audit.md").read_text()
    assert page.count("\n## ") == len(TASKS)
    assert "- **likelihood+2*oracle** (no signal): no signal: zero-variance groups 100 %" in page
    assert (folder / "out" / "audit.png").read_bytes().startswith(b"\x89PNG")
