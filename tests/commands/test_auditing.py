"""`cellduality audit` from the flags to the files; mistakes are found before a model loads."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cellduality_plugin.cli import app
from cellduality_plugin.commands.auditing import write_audit, write_choice, write_chosen_rows
from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.audit.engine import Players
from cellduality_plugin.evaluation.audit.run import AuditSettings, audit, read_audit
from cellduality_plugin.examples import Example
from cellduality_plugin.files import read_jsonl, write_jsonl
from cellduality_plugin.parsing import join_response
from cellduality_plugin.tasks import TASKS
from data_prep.rows import audit_rows
from tests.play import Saying


@contextmanager
def opened():
    """Players who say the same to every question."""
    policy = Saying(join_response("T"))
    yield Players(policy, policy, policy, len, len)


@pytest.fixture
def folder(tmp_path: Path, make_config, vocabulary, cell) -> Path:
    """A prepared folder of one cell."""
    make_config()
    how = {"count": 1, "hidden": 0.25, "masks": 4, "rng": np.random.default_rng(0)}
    write_jsonl(tmp_path / "audit.jsonl", audit_rows([cell], list(TASKS.values()), vocabulary, **how))
    return tmp_path


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ((), "model"),
        (("--config", "elsewhere.json"), "elsewhere.json"),
        (("--rewards", "rwjs"), "rwjs"),
        (("--rewards", "oracle,missing.py:Mine"), "missing.py"),
        (("--hidden", "0.25,2"), "0.25,2"),
        (("--traces", "many"), "many"),
        (("--backend", "none"), "none"),
        (("--choose", "elsewhere/chosen.json"), "--choose"),
        (("--rl-rows", "rl.jsonl", "--chosen-rows", "chosen.jsonl"), "--chosen-rows"),
    ],
)
def test_mistakes_are_found_before_a_model_loads(words, value, folder):
    flags = ["--model", str(folder / "model"), "--data", str(folder), "--out", str(folder / "out"), *words]
    with pytest.raises(CellDualityError) as error:
        CliRunner().invoke(app, ["audit", *flags], catch_exceptions=False)
    assert value in str(error.value)
    assert not (folder / "out").exists()


def test_the_choice_is_a_configuration_of_the_tasks_that_are_trained_on_and_all_is_written(folder):
    config = Config.load(folder / "cellduality.json")
    settings = AuditSettings(rewards=("likelihood",), hidden=(0.5, 1.0), traces=(0, 2), resamples=20)
    content = audit(folder, config, opened, settings)
    agrees = ("cell_type_annotation", "likelihood, all hidden, 2 traces")
    for each in content["findings"]:
        each["verdict"]["grade"] = "agrees" if (each["task"], each["reward"]) == agrees else "unclear"
    tasks = write_choice(content, config, folder / "chosen.json")
    assert list(tasks) == ["cell_type_annotation"]
    own = Config.load(folder / "chosen.json").tasks["cell_type_annotation"]
    assert (own.reward, own.hidden, own.traces) == ("likelihood", 1.0, 2)
    before = config.tasks["cell_type_annotation"]
    assert own.model_copy(update={"reward": before.reward, "hidden": None, "traces": 0}) == before
    write_audit(content, folder / "out")
    written = read_audit(folder / "out" / "audit.json")
    assert written["findings"] == json.loads(json.dumps(content["findings"]))
    assert {each["task"] for each in written["findings"]} == set(TASKS)
    assert "- **likelihood, all hidden, 2 traces** (agrees): " in (folder / "out" / "audit.md").read_text()
    assert (folder / "out" / "audit.png").read_bytes().startswith(b"\x89PNG")
    choice = written["choice"]
    assert choice.keys() == config.tasks.keys()
    assert {name for name, each in choice.items() if each["contender"]} == {"cell_type_annotation"}


@pytest.mark.parametrize(("batch", "left"), [(1, 7), (3, 6), (7, 7), (8, 7)])
def test_rows_of_the_tasks_that_stay_out_are_left_out_and_whole_batches_remain(batch, left, folder):
    names = ["cell_type_annotation", "conditional_cell_generation"]
    rows = [
        {"input": str(n), "label": Example(names[n % 2], f"s/{n}", {}, {}, "B", None).to_label()} for n in range(14)
    ]
    write_jsonl(folder / "rl.jsonl", rows)
    write_chosen_rows(folder / "rl.jsonl", folder / "chosen.jsonl", names[:1], batch)
    assert list(read_jsonl(folder / "chosen.jsonl")) == rows[::2][:left]
    write_chosen_rows(folder / "rl.jsonl", folder / "chosen.jsonl", (), batch)
    assert (folder / "chosen.jsonl").read_text() == ""
