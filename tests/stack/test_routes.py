"""The three routes give the same reward for the same weights: agent, reward server and reward function."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from cellduality_plugin.files import read_jsonl
from cellduality_plugin.tasks import TASKS
from tests.stack.conftest import CELLDUALITY, CPU, ROOT, answers, change, free_port
from tests.stack.score_in_engine import asked, rewards_of

pytestmark = [pytest.mark.stack, pytest.mark.long]

KINDS = ("duality", "likelihood", "posterior")
ROWS, EACH, MAX_LEN = 8, 2, 128
QUANTUM = 2**-10
TOKEN = "a-token-for-the-stack"


@pytest.fixture
def policy_url(prepared, serve_policy, tmp_path):
    """The address of vLLM's own OpenAI server over the SFT model."""
    with serve_policy(prepared / "sft", tmp_path / "policy", MAX_LEN) as url:
        yield url


@pytest.fixture
def configs(prepared, policy_url) -> dict[str, Path]:
    """A configuration for each kind of reward, with the endpoint in it."""
    endpoint = {"urls": [policy_url], "model": "sft", "tokenizer": str(prepared / "sft")}
    files = {kind: prepared / "data" / f"{kind}.json" for kind in KINDS}
    for kind, file in files.items():
        shutil.copy(prepared / "data" / "cellduality.json", file)
        change(file, dict.fromkeys(TASKS, kind), {"endpoint": endpoint})
    return files


@pytest.fixture
def rollouts(prepared, policy_url) -> list[dict[str, Any]]:
    """What the model really says to rows of every task, in tokens."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(prepared / "sft")
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


def test_agent_server_and_function_give_one_reward(prepared, configs, rollouts, start, tmp_path):
    from openrlhf.utils.agent import SingleTurnAgentExecutor
    from transformers import AutoTokenizer

    from cellduality_plugin.agent_file import bound_reward_file

    tokenizer = AutoTokenizer.from_pretrained(prepared / "sft")
    told, found = tmp_path / "rollouts.json", tmp_path / "rewards.json"
    told.write_text(json.dumps(rollouts))
    script = str(Path(__file__).with_name("score_in_engine.py"))
    command = (*CPU, "python", script, str(prepared / "sft"), str(MAX_LEN), str(told), str(found))
    agent = start(tmp_path / "agent", *command, *map(str, configs.values()), PYTHONPATH=str(ROOT))
    servers = {}
    for kind, config in configs.items():  # all at once: what takes time is to start
        port = free_port()
        serve = (sys.executable, *CELLDUALITY[1:], "serve-reward", "--config", str(config), "--port", str(port))
        servers[kind] = port, start(tmp_path / kind, *serve, PYTHONPATH=str(ROOT), CELLDUALITY_TOKEN=TOKEN)
    assert agent.end(300) == 0, agent.printed
    by_agent = json.loads(found.read_text())

    seen = {}
    for kind, config in configs.items():
        port, server = servers[kind]
        server.until(lambda port=port: answers(f"http://127.0.0.1:{port}/healthz"))
        over_http = SingleTurnAgentExecutor([f"http://any:{TOKEN}@127.0.0.1:{port}/"])
        from_file = SingleTurnAgentExecutor(str(bound_reward_file(config)))
        seen[kind] = {
            "agent": by_agent[str(config)],
            "server": asyncio.run(rewards_of(over_http, rollouts, tokenizer, MAX_LEN)),
            "file": asyncio.run(rewards_of(from_file, rollouts, tokenizer, MAX_LEN)),
        }
        from_file.reward_func.close()
    for _, server in servers.values():
        server.interrupt()
    for _, server in servers.values():
        assert server.end(60) == 0, server.printed

    for kind, routes in seen.items():
        # Generated greedily a dual is the same text; log-probabilities may depend on who shares a batch, in bf16.
        # Measured on a CPU: no reward of the 48 differs.
        bound = 0.0 if kind == "duality" else QUANTUM
        for route in ("server", "file"):
            far = [abs(a - b) for a, b in zip(routes["agent"], routes[route], strict=True)]
            assert max(far) <= bound, (kind, route, routes)
        assert max(routes["agent"]) > 0.0, kind
        assert len(set(routes["agent"])) > 1, kind
