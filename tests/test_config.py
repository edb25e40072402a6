from __future__ import annotations

import math

import pytest

from cellduality_plugin.agent_file import bound_agent_file
from cellduality_plugin.config import PATH_VARIABLE, Config
from cellduality_plugin.rewards import REWARDS
from tests.refused import refused

TYPE = "cell_type_annotation"
ENDPOINT = {"urls": ["http://h/v1"], "model": "m"}


def test_the_variable_names_the_file(make_config, tmp_path, monkeypatch):
    monkeypatch.delenv(PATH_VARIABLE, raising=False)
    with refused("no-config"):
        Config.load()
    make_config()
    monkeypatch.setenv(PATH_VARIABLE, str(tmp_path / "cellduality.json"))
    assert list(Config.load().load_tasks()) == list(Config.load().tasks)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"tsks": {}}, "tsks"),
        ({"dual": {"temperature": -1}}, "dual.temperature"),
        ({"dual": {"player": "frozen"}}, "dual: a frozen player answers at an endpoint"),
        ({"dual": {"endpoint": {**ENDPOINT, "urls": []}}}, "dual.endpoint.urls"),
        ({"dual": {"endpoint": {**ENDPOINT, "retires": 1}}}, "dual.endpoint.retires"),
        *(
            ({"tasks": {"a": {"pair": "a", **task}}}, f"tasks.a.{named}")
            for task, named in [
                ({"reward": "rwjs"}, "reward: no reward 'rwjs': use one of"),
                ({"reward": {"duality": -1, "posterior": 2}}, "reward: a sum needs one reward at least, and weights"),
                *(({"reward": reward}, "reward") for reward in ({}, {"duality": 0}, {"duality": math.nan})),
                *(({"reward": reward}, "reward") for reward in ({"magic": 1}, "posterior*", {"posterior^0": 1.0}, 3)),
                ({"trace_mean": "median"}, "trace_mean"),
            ]
        ),
    ],
)
def test_wrong_settings_are_named(change, named):
    with refused("wrong-settings") as error:
        Config.read({"tasks": {}, **change}, "here")
    assert named in error.value.what


def test_every_kind_of_reward_goes_to_the_file_and_back(tmp_path):
    rewards = [*REWARDS, {"posterior": 0.5, "duality": 0.5}, "a.b:C", "x.py:C", {"a:B": 2.0}, "posterior*profile^0.3"]
    tasks = {str(place): {"pair": "a", "reward": reward} for place, reward in enumerate(rewards)}
    config = Config.read({"tasks": tasks, "dual": {"samples": 4, "temperature": 0.7, "max_new_tokens": 9}})
    config.save(tmp_path / "c.json")
    again = Config.load(tmp_path / "c.json")
    assert again.model_dump() == config.model_dump()
    assert [task.reward for task in again.tasks.values()] == rewards


def test_a_pair_under_another_name_and_a_configuration_without_data_are_refused(make_config, tmp_path):
    config = make_config(tasks={"typing": {"pair": TYPE}})
    with refused("renamed-pair"):
        config.load_tasks()
    with refused("unknown-name"):
        make_config(tasks={TYPE: {"pair": "annotate"}}).load_tasks()
    make_config()
    (tmp_path / "vocabulary.json").unlink()
    with refused("missing-file"):
        bound_agent_file(tmp_path / "cellduality.json")


@pytest.mark.parametrize(("content", "code"), [(None, "unreadable-file"), (b"{", "not-json"), (b"\xff", "not-json")])
def test_a_file_that_is_missing_or_broken_is_named(content, code, tmp_path):
    path = tmp_path / "c.json"
    if content is not None:
        path.write_bytes(content)
    with refused(code) as error:
        Config.load(path)
    assert error.value.where == str(path)


@pytest.mark.parametrize("reward", ["likelihood", "posterior", {"duality": 1, "posterior": 2}])
def test_a_chat_endpoint_is_not_asked_for_probabilities(make_config, reward):
    tasks, endpoint = {TYPE: {"pair": TYPE, "reward": reward}}, {**ENDPOINT, "kind": "chat"}
    config = make_config(tasks=tasks, dual={"player": "frozen", "endpoint": endpoint})
    with refused("needs-log-probs") as error:
        config.load_rewards(config.load_tasks())
    assert error.value.where == f"tasks.{TYPE}.reward"
    moving = make_config(tasks=tasks, dual={"endpoint": endpoint})
    assert moving.load_rewards(moving.load_tasks())
