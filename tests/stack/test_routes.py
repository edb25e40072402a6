"""The three routes give the same reward for the same weights: agent, reward server and reward function."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from cellduality_plugin.agent_file import bound_reward_file
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.hub import read_tokenizer
from cellduality_plugin.tasks import TASKS
from tests.stack.conftest import MAX_LEN, QUANTUM, TOKEN, change, endpoint, port_of
from tests.stack.score_in_engine import asked, rewards_of

pytestmark = [pytest.mark.stack, pytest.mark.long]

KINDS = ("duality", "likelihood", "posterior")
ROWS, EACH = 8, 2


@pytest.fixture
def policy_url(prepared, serve_policy, tmp_path):
    """The address of vLLM's own OpenAI server over the SFT model."""
    with serve_policy(prepared / "sft", tmp_path / "policy") as url:
        yield url


@pytest.fixture
def configs(prepared, policy_url) -> dict[str, Path]:
    """A configuration for each kind of reward, with the endpoint in it."""
    files = {kind: prepared / "data" / f"{kind}.json" for kind in KINDS}
    for kind, file in files.items():
        shutil.copy(prepared / "data" / "cellduality.json", file)
        change(file, dict.fromkeys(TASKS, kind), endpoint(policy_url, prepared / "sft"))
    return files


@pytest.fixture
def rollouts(prepared, policy_url) -> list[dict[str, Any]]:
    """What the model really says to rows of every task, in tokens."""
    tokenizer = read_tokenizer(str(prepared / "sft"))
    by_task: dict[str, list[dict[str, Any]]] = {}
    for row in read_jsonl(prepared / "data" / "rl.jsonl"):
        by_task.setdefault(json.loads(row["label"])["task"], []).append(row)
    mixed = [row for same in zip(*by_task.values(), strict=False) for row in same][:ROWS]
    made = []
    for row in mixed:
        prompt, question = asked(tokenizer, row["input"])
        body = {"model": "sft", "prompt": question, "n": EACH, "temperature": 1.0, "return_token_ids": True}
        body["max_tokens"] = min(40, MAX_LEN - len(question))
        for choice in httpx.post(f"{policy_url}/completions", json=body, timeout=120).json()["choices"]:
            made.append({"prompt": prompt, "label": row["label"], "question": question, "answer": choice["token_ids"]})
    assert len(made) == ROWS * EACH
    return made


def test_agent_server_and_function_give_one_reward(
    prepared, configs, rollouts, score_in_engine, serve_reward, tmp_path
):
    from openrlhf.utils.agent import SingleTurnAgentExecutor

    tokenizer = read_tokenizer(str(prepared / "sft"))
    # All at once: what takes time is to start.
    servers = {kind: serve_reward(tmp_path / kind, config) for kind, config in configs.items()}
    by_agent = score_in_engine(tmp_path / "agent", prepared / "sft", rollouts, *configs.values())
    seen = {}
    for kind, config in configs.items():
        over_http = SingleTurnAgentExecutor([f"http://any:{TOKEN}@127.0.0.1:{port_of(servers[kind])}/"])
        from_file = SingleTurnAgentExecutor(str(bound_reward_file(config)))
        seen[kind] = {
            "agent": by_agent[str(config)],
            "server": asyncio.run(rewards_of(over_http, rollouts, tokenizer, MAX_LEN)),
            "file": asyncio.run(rewards_of(from_file, rollouts, tokenizer, MAX_LEN)),
        }
        from_file.reward_func.close()
    for server in servers.values():
        server.send()
    for server in servers.values():
        server.ends_well(60)

    for kind, routes in seen.items():
        # Generated greedily a dual is the same text. Measured on a CPU: no reward of the 48 differs.
        bound = 0.0 if kind == "duality" else QUANTUM
        for route in ("server", "file"):
            far = [abs(a - b) for a, b in zip(routes["agent"], routes[route], strict=True)]
            assert max(far) <= bound, (kind, route, routes)
        assert max(routes["agent"]) > 0.0, kind
        assert len(set(routes["agent"])) > 1, kind
