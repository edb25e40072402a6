"""The two routes without an agent, asked by OpenRLHF's own client code; each test is named after what we lean on."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from openrlhf.utils.agent import SingleTurnAgentExecutor
from vllm import SamplingParams
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput

from cellduality_plugin.agent_file import bound_reward_file
from cellduality_plugin.config import Config
from cellduality_plugin.openrlhf_hooks.executor import DualityExecutor
from cellduality_plugin.openrlhf_hooks.remote.serving import open_judge
from cellduality_plugin.tasks import TASKS

TOKEN = "a token of some length"


class Engine:
    """An engine with one answer to a question; every other question is answered by the policy server's rules."""

    def __init__(self, server: Any, question: list[int], answer: str) -> None:
        self.server, self.question, self.answer = server, question, answer

    async def generate(self, tokens: list[int], params: SamplingParams, multi_modal_data: Any = None) -> RequestOutput:
        tokenizer = self.server.tokenizer
        text = self.answer if tokens == self.question else self.server.says(tokens)
        answered = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        before: Any = None
        if params.prompt_logprobs is not None:
            before = [None, *({token: Logprob(self.server.log_prob(n))} for n, token in enumerate(tokens) if n)]
        output = CompletionOutput(0, text, answered[: params.max_tokens], None, None, finish_reason="stop")
        return RequestOutput("1", None, list(tokens), before, [output], True)


@pytest.fixture
def world(small_world, cell, vocabulary, policy_server, make_config, tmp_path):
    """Return a function that gives (the row's prompt, its label, an engine) of a task with an answer given."""

    def make(name: str, answer: str = "", **task: Any) -> tuple[str, str, Engine]:
        pair, tokenizer = TASKS[name], small_world.tokenizer
        example = pair.example(cell, hidden=0.25, labelled=True, rng=np.random.default_rng(0))
        chat = [{"role": "user", "content": pair.primal_prompt(example.inputs, vocabulary)}]
        prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        question = tokenizer(prompt, add_special_tokens=False)["input_ids"]
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
        from cellduality_plugin.openrlhf_hooks.remote.server import RewardServer

        judge, policy = open_judge(Config.load(config_path))
        return f"http://any:{TOKEN.replace(' ', '%20')}@{serve_app(RewardServer(judge, policy, TOKEN).app)}/"

    return serve


def roll(executor: Any, prompt: str, label: str, engine: Engine) -> dict[str, Any]:
    """Return one rollout, made as OpenRLHF makes it."""
    params = SamplingParams(max_tokens=64, skip_special_tokens=False)
    rollout = executor.execute(prompt, label, params, 256, engine.server.tokenizer, engine)
    return asyncio.run(rollout)


@pytest.mark.parametrize("reward", ["duality", "likelihood", "posterior"])
@pytest.mark.parametrize("name", TASKS)
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
        same = {key: value for key, value in rollout["extra_logs"].items() if key != "dual_seconds"}
        assert same == {key: rollouts["agent"]["extra_logs"][key] for key in same}
