from __future__ import annotations

import math

import pytest

from cellduality_plugin.agent_file import bound_agent_file
from cellduality_plugin.config import PATH_VARIABLE, Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.rewards import REWARDS

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
        *(
            ({"tasks": {"a": {"pair": "a", **task}}}, message)
            for task, message in [
                ({"reward": "rwjs"}, r"no reward 'rwjs': use one of .*duality, .*posterior.*tasks\.a\.reward"),
                ({"reward": {}}, "a sum needs one reward at least"),
                ({"reward": {"duality": 0}}, "weights above 0"),
                ({"reward": {"duality": -1, "posterior": 2}}, "weights above 0"),
                ({"reward": {"duality": math.nan}}, "weights above 0"),
                ({"reward": {"magic": 1}}, "no reward 'magic'"),
                ({"reward": "posterior*"}, r"is no reward.* \[tasks\.a\.reward\]"),
                ({"reward": {"posterior^0": 1.0}}, r"'0' in 'posterior\^0' is no number above 0"),
                ({"reward": 3}, r"tasks\.a\.reward"),
                ({"traces": -1}, "traces"),
                ({"trace_mean": "median"}, "trace_mean"),
                ({"negatives": 0}, "negatives"),
                ({"minimum_spread": -1}, "minimum_spread"),
            ]
        ),
    ],
)
def test_wrong_settings_are_named_in_one_line(change, message):
    with pytest.raises(CellDualityError, match=message) as raised:
        Config.read({**GOOD, **change})
    assert "\n" not in str(raised.value)


def test_every_kind_of_reward_goes_to_the_file_and_back(tmp_path):
    rewards = [*REWARDS, {"posterior": 0.5, "duality": 0.5}, "a.b:C", "x.py:C", {"a:B": 2.0}, "posterior*profile^0.3"]
    tasks = {str(place): {"pair": "a", "reward": reward} for place, reward in enumerate(rewards)}
    config = Config.read({"tasks": tasks, "dual": {"samples": 4, "temperature": 0.7, "max_new_tokens": 9}})
    config.save(tmp_path / "c.json")
    again = Config.load(tmp_path / "c.json")
    assert (again.tasks, again.dual) == (config.tasks, config.dual)
    assert [task.reward for task in again.tasks.values()] == rewards


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
