from __future__ import annotations

import json

import pytest

from cellduality_plugin.config import Config

TYPE, CELL = "cell_type_annotation", "conditional_cell_generation"


@pytest.fixture
def configure(make_config, tmp_path, command):
    """Return a function that runs the command beside a configuration; gives exit code and complaints."""
    make_config(tasks={TYPE: {"pair": TYPE, "votes": True}, CELL: {"pair": CELL}})

    def run(*flags, out=tmp_path / "new.json"):
        return command("configure", tmp_path / "cellduality.json", "--out", out, *flags)[::2]

    return run


def test_a_star_stands_for_the_tasks_that_are_not_named(configure, tmp_path):
    assert configure("--rewards", f"*=posterior,{TYPE}=2*likelihood+duality") == (0, "")
    tasks = Config.load(tmp_path / "new.json").tasks
    assert {name: task.reward for name, task in tasks.items()} == {
        TYPE: {"likelihood": 2.0, "duality": 1.0}, CELL: "posterior",
    }  # fmt: skip


def test_what_is_not_named_stays(configure, tmp_path):
    assert configure() == (0, "")
    assert Config.load(tmp_path / "new.json") == Config.load(tmp_path / "cellduality.json")


def test_votes_are_set_and_taken_back(configure, tmp_path):
    for flag, wanted in (("", False), (f"{TYPE},drug_exposure_prediction", True)):
        assert configure("--votes", flag) == (0, "")
        assert Config.load(tmp_path / "new.json").tasks[TYPE].votes is wanted
    code, complaint = configure("--votes", CELL)
    assert code == 2
    assert "votes are counted where the answer is a label" in complaint


def test_shares_and_traces_are_set_and_taken_back(configure, tmp_path):
    assert configure("--hidden", f"*=1,{TYPE}=0.5", "--traces", f"{TYPE}=4") == (0, "")
    tasks = Config.load(tmp_path / "new.json").tasks
    assert {name: (task.hidden, task.traces) for name, task in tasks.items()} == {TYPE: (0.5, 4), CELL: (1.0, 0)}
    (tmp_path / "new.json").rename(tmp_path / "cellduality.json")
    assert configure("--hidden", f"{TYPE}=", "--traces", "*=0") == (0, "")
    tasks = Config.load(tmp_path / "new.json").tasks
    assert {name: (task.hidden, task.traces) for name, task in tasks.items()} == {TYPE: (None, 0), CELL: (1.0, 0)}


def test_an_address_freezes_the_dual(configure, tmp_path):
    flags = ("--dual-url", "http://a:1/v1", "--dual-url", "http://b:1/v1", "--dual-model", "sft")
    assert configure(*flags, "--dual-key-variable", "KEY", "--records", tmp_path / "far" / "rollouts") == (0, "")
    config = Config.load(tmp_path / "new.json")
    assert config.dual.player == "frozen"
    assert config.dual.endpoint.urls == ("http://a:1/v1", "http://b:1/v1")
    assert config.dual.endpoint.key_variable == "KEY"
    assert config.record_folder() == tmp_path / "far" / "rollouts"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--rewards", "typing=duality"), "no task 'typing'"),
        (("--rewards", "*=magic"), "no reward 'magic'"),
        (("--rewards", f"{TYPE}=posterior,{CELL}=duality-rwjs"), "compares ranked lists"),
        (("--dual-url", "http://a:1/v1"), "give both"),
        (("--hidden", "*=2"), "less than or equal to 1"),
        (("--traces", f"{TYPE}=many"), "valid integer"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(configure, tmp_path, flags, message):
    code, complaint = configure(*flags)
    assert code == 2
    assert message in complaint
    assert not (tmp_path / "new.json").exists()


def test_it_is_written_beside_the_other_for_its_relative_paths(configure, tmp_path):
    code, complaint = configure(out=tmp_path / "elsewhere" / "new.json")
    assert code == 2
    assert "write it beside the other" in complaint
    assert json.loads((tmp_path / "cellduality.json").read_text())["tasks"][TYPE]["votes"]
