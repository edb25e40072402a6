"""`cellduality audit | configure | replay` from the flags to the files; mistakes are found before a model loads."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from cellduality_plugin.commands.rewarding import write_audit, write_choice, write_chosen_rows
from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.audit.answers import AuditSettings
from cellduality_plugin.evaluation.audit.engine import Players
from cellduality_plugin.evaluation.audit.run import audit, read_audit
from cellduality_plugin.examples import Example
from cellduality_plugin.files import read_jsonl, write_jsonl
from cellduality_plugin.parsing import join_response
from cellduality_plugin.records import Recorder
from cellduality_plugin.scoring import Scorer
from cellduality_plugin.tasks import TASKS
from data_prep.rows import RowMaker
from data_prep.settings import PrepareSettings
from tests.commands.conftest import invoke
from tests.play import Saying, roll, row
from tests.refused import refused

TYPE, CELL = "cell_type_annotation", "conditional_cell_generation"


@contextmanager
def opened():
    """Players who say the same to every question."""
    policy = Saying(join_response("T"))
    yield Players(policy, policy, policy, len, len)


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


def test_the_choice_is_a_configuration_of_the_tasks_that_are_trained_on_and_all_is_written(folder):
    config = Config.load(folder / "cellduality.json")
    settings = AuditSettings(rewards=("likelihood",), hidden=(0.5, 1.0), traces=(0, 2), resamples=20)
    content = audit(folder, config, opened, settings)
    agrees = (TYPE, "likelihood, all hidden, 2 traces")
    for each in content["findings"]:
        each["verdict"]["grade"] = "agrees" if (each["task"], each["reward"]) == agrees else "unclear"
    tasks = write_choice(content, config, folder / "chosen.json")
    assert list(tasks) == [TYPE]
    own = Config.load(folder / "chosen.json").tasks[TYPE]
    assert (own.reward, own.hidden, own.traces) == ("likelihood", 1.0, 2)
    before = config.tasks[TYPE]
    assert own.model_copy(update={"reward": before.reward, "hidden": None, "traces": 0}) == before
    write_audit(content, folder / "out")
    written = read_audit(folder / "out" / "audit.json")
    assert written["findings"] == json.loads(json.dumps(content["findings"]))
    assert {each["task"] for each in written["findings"]} == set(TASKS)
    assert "- **likelihood, all hidden, 2 traces** (agrees): " in (folder / "out" / "audit.md").read_text()
    assert (folder / "out" / "audit.png").read_bytes().startswith(b"\x89PNG")
    choice = written["choice"]
    assert {name for name, each in choice.items() if each["contender"]} == {TYPE}


@pytest.mark.parametrize(("batch", "left"), [(1, 7), (3, 6), (7, 7), (8, 7)])
def test_rows_of_the_tasks_that_stay_out_are_left_out_and_whole_batches_remain(batch, left, folder):
    names = [TYPE, CELL]
    rows = [
        {"input": str(n), "label": Example(names[n % 2], f"s/{n}", {}, {}, "B", None).to_label()} for n in range(14)
    ]
    write_jsonl(folder / "rl.jsonl", rows)
    write_chosen_rows(folder / "rl.jsonl", folder / "chosen.jsonl", names[:1], batch)
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
    assert config.dual.player == "frozen"
    assert config.dual.endpoint.urls == ("http://a:1/v1", "http://b:1/v1")
    assert config.dual.endpoint.key_variable == "KEY"
    assert config.records.folder == "far/rollouts"


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (("--rewards", "typing=duality"), "unknown-task"),
        (("--rewards", "*=magic"), "wrong-settings"),
        (("--rewards", f"{TYPE}=posterior,{CELL}=duality-rwjs"), "needs-lists"),
        (("--dual-url", "http://a:1/v1"), "incomplete-flags"),
        (("--hidden", "*=2"), "wrong-settings"),
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


TEXTS = ["<answer>T</answer>", "<answer>CD19+ B</answer>", "nothing", "<answer>T</answer>"]


@pytest.fixture
def replay(make_config, tmp_path, cell):
    """Return a function that runs the command on the records of four groups; gives what it prints."""
    scorer = Scorer(make_config(tasks={TYPE: {"pair": TYPE}}))
    recorder = Recorder(tmp_path / "rollouts", every=1, limit=100)
    for _ in range(4):
        roll(scorer, row(TYPE, cell), TEXTS, Saying("<answer>MS4A1 CD74</answer>"), recorder=recorder)

    def run(*flags, folder=tmp_path / "rollouts"):
        return invoke("replay", folder, "--config", tmp_path / "cellduality.json", *flags)

    return run


def test_prints_a_line_for_each_reward_and_writes_that_of_every_rollout(replay, tmp_path):
    out = replay("--rewards", f"{TYPE}=2*duality+duality-rbo", "--out", tmp_path / "again.jsonl")
    lines = [line.split() for line in out.splitlines() if line.strip().startswith(TYPE)]
    assert [(line[1], line[2]) for line in lines] == [("recorded", "16"), ("2*duality+duality-rbo", "16")]
    assert out.splitlines()[-1] == "4 groups"
    rows = [json.loads(line) for line in (tmp_path / "again.jsonl").read_text().splitlines()]
    assert len(rows) == 16
    assert {line["truth"] for line in rows} == {0.0, 1.0}


def test_says_what_to_record_where_something_is_missing_and_counts_what_is_not_whole(replay, tmp_path):
    [path] = (tmp_path / "rollouts").glob("*.jsonl")
    path.write_bytes(path.read_bytes()[:-9])
    out = replay("--rewards", f"{TYPE}=posterior")
    assert "posterior asks what 11 rollouts did not record" in out
    assert "--rewards cell_type_annotation=0.99*CONFIGURED+0.01*posterior" in out
    assert "4 groups; 1 of them not whole, 1 lines left out" in out


def test_a_slip_and_places_without_records_are_refused(replay, tmp_path):
    slips = {"duality": "malformed", f"{TYPE}=rwjs": "wrong-settings", "other=duality": "unknown-task"}
    for rewards, code in slips.items():
        with refused(code):
            replay("--rewards", rewards)
    (tmp_path / "empty").mkdir()
    for place, code in (("gone", "missing-file"), ("empty", "no-records")):
        with refused(code):
            replay(folder=tmp_path / place)
