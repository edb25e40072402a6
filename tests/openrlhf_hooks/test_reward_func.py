"""The reward function, called from many threads as OpenRLHF calls it."""

from __future__ import annotations

import asyncio
import importlib.util
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from cellduality_plugin.agent_file import bound_reward_file, packaged_reward_file
from cellduality_plugin.config import PATH_VARIABLE
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.openrlhf_hooks.reward_func import RewardFunction
from cellduality_plugin.tasks import TASKS

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
def rollout(cell, vocabulary, small_world):
    """Return a function that gives (query, prompt, label) of an answer."""

    def make(answer: str, row: int = 0) -> tuple[str, str, str]:
        task = TASKS[TYPE]
        example = task.example(cell, hidden=0.25, labelled=False, rng=np.random.default_rng(row))
        chat = [{"role": "user", "content": task.primal_prompt(example.inputs, vocabulary)}]
        prompt = small_world.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return prompt + task.answer_response(answer), prompt, example.to_label()

    return make


def test_threads_share_their_dual_calls(reward_func, rollout, policy_server):
    policy_server.after = 0.1

    def call(answer: str) -> Any:
        query, prompt, label = rollout(answer)
        return reward_func([query], [prompt], [label])

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(call, ["T", "CD19+ B"] * 4))
    assert len(policy_server.asked) == 2
    assert all(reply["rewards"] == reply["scores"] > 0.0 for reply in found)


def test_several_rollouts_are_lists(reward_func, rollout):
    found = reward_func(*zip(rollout("T"), rollout("nothing of this kind"), strict=True))
    assert found["rewards"][0] > found["rewards"][1] == 0.0


def test_a_row_that_is_none_is_logged_before_openrlhf_swallows_it(reward_func, rollout, caplog):
    query, prompt, _ = rollout("T")
    with pytest.raises(CellDualityError):
        reward_func([query], [prompt], ["{}"])
    assert "no reward: " in caplog.text
    assert caplog.records[-1].levelname == "ERROR"


def test_it_can_be_called_after_it_was_closed_and_inside_a_loop(reward_func, rollout):
    called = [[part] for part in rollout("T")]
    first = reward_func(*called)
    reward_func.close()

    async def in_a_thread() -> Any:
        return await asyncio.to_thread(reward_func, *called)

    assert asyncio.run(in_a_thread())["rewards"] == first["rewards"]


def test_the_files_name_the_function(config_path, monkeypatch):
    monkeypatch.setenv(PATH_VARIABLE, str(config_path))
    for path in (packaged_reward_file(), bound_reward_file(config_path)):
        spec = importlib.util.spec_from_file_location("reward_func", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert isinstance(module.reward_func, RewardFunction)
