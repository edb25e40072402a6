"""The two routes without an agent, asked by OpenRLHF's own client code; each test is named after what we lean on."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import numpy as np
import openrlhf.utils.agent
import pytest
from openrlhf.utils.agent import SingleTurnAgentExecutor
from vllm import SamplingParams

from cellduality_plugin.agent_file import bound_reward_file
from cellduality_plugin.config import Config
from cellduality_plugin.openrlhf_hooks.executor import DualityExecutor
from cellduality_plugin.openrlhf_hooks.remote.judge import OPENRLHF_WAITS, open_judge
from cellduality_plugin.openrlhf_hooks.remote.server import RewardServer
from cellduality_plugin.tasks import TASKS
from tests.contract.engine import ScriptedEngine
from tests.scripted_server import Said, ScriptedServer
from tests.stack.score_in_engine import asked

TOKEN = "a-token-of-some-length"
TYPE = "cell_type_annotation"


@pytest.fixture
def world(small_world, cell, vocabulary, policy_server, make_config):
    """Return a function that gives (a task's prompt, its label, an engine whose dual the policy server plays alike)."""

    def make(name: str, **task: Any) -> tuple[str, str, ScriptedEngine]:
        pair, tokenizer = TASKS[name], small_world.tokenizer
        example = pair.example(cell, hidden=0.25, labelled=True, rng=np.random.default_rng(0))
        prompt, question = asked(tokenizer, pair.primal_prompt(example.inputs, vocabulary))
        policy_server.text = pair.rebuilt_response(example.unknown)
        endpoint = {"urls": [policy_server.url], "model": "toy", "tokenizer": str(small_world.model)}
        make_config(tasks={name: {"pair": name, **task}}, dual={"endpoint": endpoint})
        said, log_prob = [pair.answer_response(example.gold)], policy_server.log_prob
        engine = ScriptedEngine(tokenizer, question, said, policy_server.text, log_prob=log_prob)
        return prompt, example.to_label(), engine

    return make


@pytest.fixture
def config_path(tmp_path):
    return tmp_path / "cellduality.json"


@pytest.fixture
def address(serve_app, config_path):
    """Return a function that serves the configured reward and gives the address for OpenRLHF."""

    def serve() -> str:
        server = RewardServer(*open_judge(Config.load(config_path)), TOKEN)
        return f"http://any:{TOKEN}@{serve_app(server.app)}/"

    return serve


def roll(executor: Any, prompt: str, label: str, engine: ScriptedEngine, count: int = 1) -> list[dict[str, Any]]:
    """Return so many rollouts, made as OpenRLHF makes them, at the same time."""
    given = (prompt, label, SamplingParams(max_tokens=64, skip_special_tokens=False), 256, engine.tokenizer, engine)

    async def all_of_them() -> list[dict[str, Any]]:
        return await asyncio.gather(*(executor.execute(*given) for _ in range(count)))

    return asyncio.run(all_of_them())


@pytest.mark.parametrize("reward", ["duality", "likelihood", "posterior"])
@pytest.mark.parametrize("name", [TYPE, "conditional_cell_generation"])
def test_server_and_function_give_the_reward_of_the_agent(name, reward, world, config_path, address):
    row = world(name, reward=reward)
    with_file = SingleTurnAgentExecutor(str(bound_reward_file(config_path)))
    [agent] = roll(DualityExecutor(config_path), *row)
    [server], [file] = (roll(executor, *row) for executor in (SingleTurnAgentExecutor([address()]), with_file))
    with_file.reward_func.close()
    assert agent["reward"] > 0.0
    for rollout in (server, file):
        assert rollout["scores"] == rollout["reward"] == agent["reward"]
        assert list(rollout["extra_logs"]) == list(agent["extra_logs"])
        # A server does not see how long the rollout took.
        same = {key: value for key, value in rollout["extra_logs"].items() if not key.endswith("seconds")}
        assert same == {key: agent["extra_logs"][key] for key in same}


def test_a_rollout_is_posted_alone_and_in_these_fields(world):
    rewarded = {"rewards": 0.25, "scores": 0.5, "extra_logs": {"dual_reward": 0.25}}
    posted, server = [], ScriptedServer()
    server.usual = lambda _, body: posted.append(body) or Said(body=json.dumps(rewarded).encode())
    server.start()
    prompt, label, engine = world(TYPE)
    [rollout] = roll(SingleTurnAgentExecutor([server.url.removesuffix("v1")]), prompt, label, engine)
    server.stop()
    [body], tokenizer = posted, engine.tokenizer
    whole = tokenizer.decode(rollout["observation_tokens"], skip_special_tokens=False)
    assert body == {"query": [whole], "prompts": [prompt], "labels": [label]}
    assert tokenizer.eos_token in whole
    assert (rollout["reward"], rollout["scores"], rollout["extra_logs"]) == tuple(rewarded.values())


def test_openrlhf_asks_one_server_five_times_and_no_other(world, address, monkeypatch):
    """So every second rollout has no reward if one of two servers is gone; our own client asks the other."""
    row = world(TYPE, reward="likelihood")
    sleep, slept = asyncio.sleep, []

    async def briefly(seconds: float) -> None:
        slept.append(seconds)
        await sleep(min(seconds, 0.01))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        gone = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    monkeypatch.setattr(openrlhf.utils.agent.asyncio, "sleep", briefly)
    rollouts = roll(SingleTurnAgentExecutor([gone, address()]), *row, 4)
    assert [rollout["reward"] is None for rollout in rollouts] == [True, False] * 2
    assert slept.count(1) == 2 * 5


def test_openrlhf_waits_as_long_as_we_say_it_does(world, address, monkeypatch):
    row = world(TYPE, reward="likelihood")
    totals, timeout = [], openrlhf.utils.agent.aiohttp.ClientTimeout
    monkeypatch.setattr(
        openrlhf.utils.agent.aiohttp, "ClientTimeout", lambda total: totals.append(total) or timeout(total=total)
    )
    roll(SingleTurnAgentExecutor([address()]), *row)
    assert OPENRLHF_WAITS in totals  # and what the dual waits for, by the same library
