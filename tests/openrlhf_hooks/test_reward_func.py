"""The reward function, called from many threads as OpenRLHF calls it."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cellduality_plugin.agent_file import bound_reward_file, packaged_reward_file
from cellduality_plugin.config import PATH_VARIABLE
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.openrlhf_hooks.reward_func import RewardFunction

TYPE = "cell_type_annotation"


@pytest.fixture
def config_path(make_config, policy_server, small_world, tmp_path):
    endpoint = {"urls": [policy_server.url], "model": "toy", "tokenizer": str(small_world.model)}
    make_config(tasks={TYPE: {"pair": TYPE, "reward": "likelihood"}}, dual={"endpoint": endpoint})
    return tmp_path / "cellduality.json"


@pytest.fixture
def reward_func(config_path):
    function = RewardFunction(config_path)
    yield function
    function.close()


@pytest.fixture
def rollout(posted) -> Callable[..., tuple[list[str], ...]]:
    """Return a function that gives (queries, prompts, labels) of answers to one question."""
    return lambda *answers: tuple(posted(TYPE, *answers).values())


def test_threads_share_their_dual_calls(reward_func, rollout, policy_server):
    policy_server.after = 0.1
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda answer: reward_func(*rollout(answer)), ["T", "CD19+ B"] * 4))
    assert len(policy_server.asked) == 2
    assert all(reply["rewards"] == reply["scores"] > 0.0 for reply in found)


def test_a_row_that_is_none_is_logged_before_openrlhf_swallows_it(reward_func, rollout, caplog):
    query, prompt, _ = rollout("T")
    with pytest.raises(CellDualityError):
        reward_func(query, prompt, ["{}"])
    assert "no reward: " in caplog.text
    assert caplog.records[-1].levelname == "ERROR"


def test_it_can_be_called_after_it_was_closed_and_inside_a_loop(reward_func, rollout):
    first = reward_func(*rollout("T"))
    reward_func.close()

    async def in_a_thread() -> Any:
        return await asyncio.to_thread(reward_func, *rollout("T"))

    assert asyncio.run(in_a_thread())["rewards"] == first["rewards"]


def test_the_files_name_the_function(config_path, monkeypatch):
    monkeypatch.setenv(PATH_VARIABLE, str(config_path))
    for path in (packaged_reward_file(), bound_reward_file(config_path)):
        spec = importlib.util.spec_from_file_location("reward_func", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert isinstance(module.reward_func, RewardFunction)
