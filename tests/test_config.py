from __future__ import annotations

import json

import pytest

from cellduality_plugin.agent_file import bound_agent_file, packaged_agent_file
from cellduality_plugin.config import PATH_VARIABLE, Config
from cellduality_plugin.errors import CellDualityError

GOOD = {"tasks": {"cell_type_annotation": {"pair": "cell_type_annotation"}}}


def test_the_variable_names_the_file(make_config, tmp_path, monkeypatch):
    make_config()
    monkeypatch.setenv(PATH_VARIABLE, str(tmp_path / "cellduality.json"))
    assert list(Config.load().load_tasks()) == list(Config.load().tasks)


def test_without_a_file_the_message_says_how_to_name_one(monkeypatch):
    monkeypatch.delenv(PATH_VARIABLE, raising=False)
    with pytest.raises(CellDualityError, match="export CELLDUALITY_CONFIG="):
        Config.load()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tsks": {}}, "tsks"),
        ({"dual": {"temperature": -1}}, "dual.temperature"),
        ({"dual": {"timeout_seconds": 0}}, "dual.timeout_seconds"),
        ({"dual": {"player": "frozen"}}, "a frozen player answers at an endpoint"),
        ({"dual": {"player": "fixed"}}, "dual.player"),
        ({"dual": {"endpoint": {"model": "m"}}}, "dual.endpoint.urls"),
        ({"dual": {"endpoint": {"urls": [], "model": "m"}}}, "dual.endpoint.urls"),
        ({"dual": {"endpoint": {"urls": ["http://h/v1"], "model": "m", "retires": 1}}}, "dual.endpoint.retires"),
        ({"tasks": {"a": {"pair": "a", "reward": "magic"}}}, "tasks.a.reward"),
    ],
)
def test_wrong_settings_are_named(tmp_path, change, message):
    path = tmp_path / "c.json"
    path.write_text(json.dumps({**GOOD, **change}))
    with pytest.raises(CellDualityError, match=message):
        Config.load(path)


def test_a_pair_under_another_name_is_refused(make_config):
    config = make_config(tasks={"typing": {"pair": "cell_type_annotation"}})
    with pytest.raises(CellDualityError, match="is called 'cell_type_annotation', not 'typing'"):
        config.load_tasks()


def test_a_file_that_is_missing_or_broken_is_one_line(tmp_path):
    with pytest.raises(CellDualityError, match="cannot read"):
        Config.load(tmp_path / "none.json")
    (tmp_path / "c.json").write_text("{")
    with pytest.raises(CellDualityError, match="not JSON"):
        Config.load(tmp_path / "c.json")


def test_the_packaged_agent_file_is_there():
    assert packaged_agent_file().is_file()


def test_a_bound_agent_file_names_its_configuration(make_config, tmp_path):
    make_config()
    agent = bound_agent_file(tmp_path / "cellduality.json")
    assert agent.parent == tmp_path
    assert repr(str(tmp_path / "cellduality.json")) in agent.read_text()
    compile(agent.read_text(), str(agent), "exec")


def test_an_agent_is_not_bound_to_a_configuration_without_data(make_config, tmp_path):
    make_config()
    (tmp_path / "vocabulary.json").unlink()
    with pytest.raises(CellDualityError, match="no vocabulary"):
        bound_agent_file(tmp_path / "cellduality.json")


@pytest.mark.parametrize("reward", ["likelihood", "posterior", {"duality": 1, "posterior": 2}])
def test_a_chat_endpoint_is_not_asked_for_probabilities(make_config, reward):
    endpoint = {"urls": ["http://h/v1"], "model": "m", "kind": "chat"}
    tasks = {"cell_type_annotation": {"pair": "cell_type_annotation", "reward": reward}}
    config = make_config(tasks=tasks, dual={"player": "frozen", "endpoint": endpoint})
    with pytest.raises(CellDualityError, match=r"a chat endpoint cannot tell .*tasks.cell_type_annotation.reward"):
        config.load_rewards(config.load_tasks())
    moving = make_config(tasks=tasks, dual={"endpoint": endpoint})
    assert moving.load_rewards(moving.load_tasks())
