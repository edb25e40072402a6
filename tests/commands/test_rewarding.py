"""`cellduality audit | configure` from the flags to the files; mistakes are found before a model loads."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from cellduality_plugin.commands.rewarding import write_chosen_rows
from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.audit import engine, run
from cellduality_plugin.evaluation.audit.engine import Players
from cellduality_plugin.evaluation.audit.run import read_audit
from cellduality_plugin.examples import Example
from cellduality_plugin.files import read_jsonl, write_jsonl, write_text
from cellduality_plugin.parsing import join_response
from cellduality_plugin.tasks import TASKS
from data_prep.rows import RowMaker
from data_prep.settings import PrepareSettings
from tests.commands.conftest import invoke
from tests.evaluation.audit.conftest import Words
from tests.play import Saying
from tests.refused import refused

TYPE, CELL = "cell_type_annotation", "conditional_cell_generation"


@pytest.fixture
def folder(tmp_path: Path, make_config, vocabulary, cell) -> Path:
    """A prepared folder of one cell."""
    make_config()
    made = RowMaker(list(TASKS.values()), vocabulary, PrepareSettings(n_audit=1))
    write_jsonl(tmp_path / "audit.jsonl", made.audit([cell], np.random.default_rng(0)))
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
    with pytest.raises(CellDualityError) as error:
        invoke("audit", "--model", folder / "model", "--data", folder, "--out", folder / "out", *words)
    assert value in str(error.value)
    assert not (folder / "out").exists()


def test_the_choice_is_a_configuration_of_the_tasks_that_are_trained_on_and_all_is_written(folder, monkeypatch):
    """With players who say the same to every question, and a verdict that agrees with one reward of one task."""

    def play(*checkpoint, **how):
        return nullcontext(Players(Words(), *[Saying(join_response("T"))] * 3))

    def agrees(found):
        fits = (found["task"], found["reward"]) == (TYPE, "likelihood, all hidden, 2 traces")
        return ("agrees" if fits else "unclear"), "so"

    monkeypatch.setattr(engine, "checkpoint_players", play)
    monkeypatch.setattr(run, "verdict", agrees)
    before = Config.load(folder / "cellduality.json").tasks
    rows = [{"label": Example(name, "s/1", {}, {}, "B", None).to_label()} for name in (TYPE, CELL)]
    write_jsonl(folder / "rl.jsonl", rows)
    model, chosen, out = folder / "model", folder / "chosen.json", folder / "out"
    write_text(model / "config.json", "{}")
    flags = "--rewards", "likelihood", "--hidden", "0.5,1", "--traces", "0,2"
    files = "--choose", chosen, "--rl-rows", folder / "rl.jsonl", "--chosen-rows", folder / "chosen.jsonl"
    printed = invoke("audit", "--model", model, "--data", folder, "--out", out, *flags, *files)
    assert list(read_jsonl(folder / "chosen.jsonl")) == rows[:1]
    [own] = Config.load(chosen).tasks.values()
    assert own == before[TYPE].model_copy(update={"reward": "likelihood", "hidden": 1.0, "traces": 2})
    written = read_audit(out / "audit.json")
    assert {each["task"] for each in written["findings"]} == set(TASKS)
    assert {name for name, each in written["choice"].items() if each["contender"]} == {TYPE}
    assert "- **likelihood, all hidden, 2 traces** (agrees): so" in (out / "audit.md").read_text() in printed
    assert (out / "audit.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("batch", "left"), [(1, 7), (3, 6), (7, 7), (8, 7)])
def test_rows_of_the_tasks_that_stay_out_are_left_out_and_whole_batches_remain(batch, left, folder):
    rows = [{"label": Example((TYPE, CELL)[n % 2], f"s/{n}", {}, {}, "B", None).to_label()} for n in range(14)]
    write_jsonl(folder / "rl.jsonl", rows)
    write_chosen_rows(folder / "rl.jsonl", folder / "chosen.jsonl", [TYPE], batch)
    assert list(read_jsonl(folder / "chosen.jsonl")) == rows[::2][:left]
    write_chosen_rows(folder / "rl.jsonl", folder / "chosen.jsonl", (), batch)
    assert (folder / "chosen.jsonl").read_text() == ""


@pytest.fixture
def configure(make_config, tmp_path):
    """Return a function that runs the command beside a configuration; gives the new one."""
    make_config(tasks={TYPE: {"pair": TYPE, "votes": True}, CELL: {"pair": CELL}})

    def run(*flags, out="new.json"):
        invoke("configure", tmp_path / "cellduality.json", "--out", tmp_path / out, *flags)
        return Config.load(tmp_path / out)

    return run


def test_each_setting_is_changed_by_task_or_for_all_others_and_taken_back(configure, tmp_path):
    assert configure() == Config.load(tmp_path / "cellduality.json"), "what is not named stays"
    tasks = configure("--rewards", f"*=posterior,{TYPE}=2*likelihood+duality").tasks
    assert (tasks[TYPE].reward, tasks[CELL].reward) == ({"likelihood": 2.0, "duality": 1.0}, "posterior")
    assert not configure("--votes", "").tasks[TYPE].votes
    assert configure("--votes", f"{TYPE},drug_exposure_prediction").tasks[TYPE].votes
    tasks = configure("--hidden", f"*=1,{TYPE}=0.5", "--traces", f"{TYPE}=4").tasks
    assert {name: (task.hidden, task.traces) for name, task in tasks.items()} == {TYPE: (0.5, 4), CELL: (1.0, 0)}
    (tmp_path / "new.json").rename(tmp_path / "cellduality.json")
    tasks = configure("--hidden", f"{TYPE}=", "--traces", "*=0").tasks
    assert {name: (task.hidden, task.traces) for name, task in tasks.items()} == {TYPE: (None, 0), CELL: (1.0, 0)}


def test_an_address_freezes_the_dual(configure, tmp_path):
    flags = ("--dual-url", "http://a:1/v1", "--dual-url", "http://b:1/v1", "--dual-model", "sft")
    config = configure(*flags, "--dual-key-variable", "KEY", "--records", tmp_path / "far" / "rollouts")
    dual = config.dual
    assert (dual.player, dual.endpoint.urls) == ("frozen", ("http://a:1/v1", "http://b:1/v1"))
    assert (dual.endpoint.key_variable, config.records.folder) == ("KEY", "far/rollouts")


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (("--rewards", "typing=duality"), "unknown-task"),
        (("--rewards", "*=magic"), "wrong-settings"),
        (("--rewards", f"{TYPE}=posterior,{CELL}=duality-rwjs"), "needs-lists"),
        (("--dual-url", "http://a:1/v1"), "incomplete-flags"),
        (("--traces", f"{TYPE}=many"), "wrong-settings"),
        (("--votes", CELL), "needs-labels"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(configure, tmp_path, flags, code):
    with refused(code):
        configure(*flags)
    assert not (tmp_path / "new.json").exists()
    with refused("other-folder"):  # for its relative paths
        configure(out="elsewhere/new.json")
