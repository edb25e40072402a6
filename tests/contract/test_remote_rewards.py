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
from vllm.outputs import RequestOutput

from cellduality_plugin.agent_file import bound_reward_file
from cellduality_plugin.config import Config
from cellduality_plugin.openrlhf_hooks.executor import DualityExecutor
from cellduality_plugin.openrlhf_hooks.remote.judge import OPENRLHF_WAITS, open_judge
from cellduality_plugin.openrlhf_hooks.remote.server import Limits, RewardServer
from cellduality_plugin.tasks import TASKS
from tests.contract.engine import reply
from tests.scripted_server import Said, ScriptedServer
from tests.stack.score_in_engine import asked

TOKEN = "a-token-of-some-length"
TYPE = "cell_type_annotation"


class Engine:
    """An engine with one answer to a question; every other question is answered by the policy server's rules."""

    def __init__(self, server: Any, question: list[int], answer: str) -> None:
        self.server, self.question, self.answer = server, question, answer

    async def generate(self, tokens: list[int], params: SamplingParams, multi_modal_data: Any = None) -> RequestOutput:
        tokenizer, log_prob = self.server.tokenizer, self.server.log_prob
        text = self.answer if tokens == self.question else self.server.says(tokens)
        answer = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id][: params.max_tokens]
        return reply(tokens, params, answer, "stop", log_prob, lambda _: log_prob(len(tokens)))


@pytest.fixture
def world(small_world, cell, vocabulary, policy_server, make_config, tmp_path):
    """Return a function that gives (the row's prompt, its label, an engine) of a task with an answer given."""

    def make(name: str, answer: str = "", **task: Any) -> tuple[str, str, Engine]:
        pair = TASKS[name]
        example = pair.example(cell, hidden=0.25, labelled=True, rng=np.random.default_rng(0))
        prompt, question = asked(small_world.tokenizer, pair.primal_prompt(example.inputs, vocabulary))
        policy_server.text = pair.rebuilt_response(example.unknown)
        make_config(
            tasks={name: {"pair": name, **task}},
            dual={"endpoint": {"urls": [policy_server.url], "model": "toy", "tokenizer": str(small_world.model)}},
        )
        return prompt, example.to_label(), Engine(policy_server, question, answer or pair.answer_response(example.gold))

    return make


@pytest.fixture
def config_path(tmp_path):
    return tmp_path / "cellduality.json"


@pytest.fixture
def address(serve_app, config_path):
    """Return a function that serves the configured reward and gives the address for OpenRLHF."""

    def serve() -> str:
        server = RewardServer(*open_judge(Config.load(config_path)), TOKEN, Limits())
        return f"http://any:{TOKEN}@{serve_app(server.app)}/"

    return serve


def roll(*of: Any) -> dict[str, Any]:
    """Return one rollout, made as OpenRLHF makes it."""
    return roll_some(*of, 1)[0]


def roll_some(executor: Any, prompt: str, label: str, engine: Engine, count: int) -> list[dict[str, Any]]:
    """Return so many rollouts, made at the same time."""
    params = SamplingParams(max_tokens=64, skip_special_tokens=False)

    async def all_of_them() -> list[dict[str, Any]]:
        given = (prompt, label, params, 256, engine.server.tokenizer, engine)
        return await asyncio.gather(*(executor.execute(*given) for _ in range(count)))

    return asyncio.run(all_of_them())


@pytest.mark.parametrize("reward", ["duality", "likelihood", "posterior"])
@pytest.mark.parametrize("name", [TYPE, "conditional_cell_generation"])
def test_server_and_function_give_the_reward_of_the_agent(name, reward, world, config_path, address):
    prompt, label, engine = world(name, reward=reward)
    with_file = SingleTurnAgentExecutor(str(bound_reward_file(config_path)))
    rollouts = {
        "agent": roll(DualityExecutor(config_path), prompt, label, engine),
        "server": roll(SingleTurnAgentExecutor([address()]), prompt, label, engine),
        "file": roll(with_file, prompt, label, engine),
    }
    with_file.reward_func.close()
    rewards = {route: rollout["reward"] for route, rollout in rollouts.items()}
    assert len(set(rewards.values())) == 1, rewards
    assert rewards["agent"] > 0.0
    for rollout in rollouts.values():
        assert rollout["scores"] == rollout["reward"]
        assert list(rollout["extra_logs"]) == list(rollouts["agent"]["extra_logs"])
        # A server does not see how long the rollout took.
        same = {key: value for key, value in rollout["extra_logs"].items() if not key.endswith("seconds")}
        assert same == {key: rollouts["agent"]["extra_logs"][key] for key in same}


def test_a_rollout_is_posted_alone_and_in_these_fields(world):
    rewarded = {"rewards": 0.25, "scores": 0.5, "extra_logs": {"dual_reward": 0.25}}
    posted, server = [], ScriptedServer()
    server.usual = lambda _, body: posted.append(body) or Said(body=json.dumps(rewarded).encode())
    server.start()
    prompt, label, engine = world(TYPE)
    rollout = roll(SingleTurnAgentExecutor([server.url.removesuffix("v1")]), prompt, label, engine)
    server.stop()
    [body] = posted
    tokenizer = engine.server.tokenizer
    whole = tokenizer.decode(rollout["observation_tokens"], skip_special_tokens=False)
    assert body == {"query": [whole], "prompts": [prompt], "labels": [label]}
    assert tokenizer.eos_token in whole
    assert (rollout["reward"], rollout["scores"], rollout["extra_logs"]) == tuple(rewarded.values())


def test_openrlhf_asks_one_server_five_times_and_no_other(world, address, monkeypatch):
    """So every second rollout has no reward if one of two servers is gone; our own client asks the other."""
    prompt, label, engine = world(TYPE, reward="likelihood")
    sleep, slept = asyncio.sleep, []

    async def briefly(seconds: float) -> None:
        slept.append(seconds)
        await sleep(min(seconds, 0.01))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        gone = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    monkeypatch.setattr(openrlhf.utils.agent.asyncio, "sleep", briefly)
    rollouts = roll_some(SingleTurnAgentExecutor([gone, address()]), prompt, label, engine, 4)
    assert [rollout["reward"] is None for rollout in rollouts] == [True, False] * 2
    assert slept.count(1) == 2 * 5


def test_openrlhf_waits_as_long_as_we_say_it_does(world, address, monkeypatch):
    prompt, label, engine = world(TYPE, reward="likelihood")
    totals, timeout = [], openrlhf.utils.agent.aiohttp.ClientTimeout
    monkeypatch.setattr(
        openrlhf.utils.agent.aiohttp, "ClientTimeout", lambda total: totals.append(total) or timeout(total=total)
    )
    roll(SingleTurnAgentExecutor([address()]), prompt, label, engine)
    assert OPENRLHF_WAITS in totals  # and what the dual waits for, by the same library
