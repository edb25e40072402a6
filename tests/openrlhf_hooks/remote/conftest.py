"""A reward server over a scripted policy, and rollouts to send it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from cellduality_plugin.config import Config
from cellduality_plugin.openrlhf_hooks.remote.server import Limits, RewardServer
from cellduality_plugin.openrlhf_hooks.remote.serving import open_judge
from cellduality_plugin.tasks import TASKS

TOKEN = "a-token-of-some-length"


@dataclass
class Reply:
    """What a server said."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def content(self) -> Any:
        return json.loads(self.body)


class Client:
    """Sends what it is told to send."""

    def __init__(self, server: RewardServer, host: str) -> None:
        self.server, self.host = server, host

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        connection = http.client.HTTPConnection(self.host, timeout=20)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            named = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, named, response.read())
        finally:
            connection.close()

    def post(self, body: Any, token: str = TOKEN, **headers: str) -> Reply:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.send("POST", "/", sent, Authorization=f"Bearer {token}", **headers)

    def metrics(self) -> dict[str, float]:
        page = self.send("GET", "/metrics", Authorization=f"Bearer {TOKEN}").body.decode()
        lines = (line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
        return {name.removeprefix("cellduality_"): float(value) for name, value in lines}


@pytest.fixture
def told(cell, vocabulary, small_world) -> Callable[..., dict[str, list[str]]]:
    """Return a function that gives what OpenRLHF posts for answers to the question of a task."""

    def make(name: str, *answers: Any, row: int = 0) -> dict[str, list[str]]:
        task, tokenizer = TASKS[name], small_world.tokenizer
        example = task.example(cell, hidden=0.25, labelled=True, rng=np.random.default_rng(row))
        chat = [{"role": "user", "content": task.primal_prompt(example.inputs, vocabulary)}]
        prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        texts = [task.answer_response(value) if value != "" else "" for value in answers or (example.gold,)]
        return {
            "query": [prompt + text + tokenizer.eos_token for text in texts],
            "prompts": [prompt] * len(texts),
            "labels": [example.to_label()] * len(texts),
        }

    return make


@pytest.fixture
def served(make_config, policy_server, small_world, serve_app, tmp_path) -> Callable[..., Client]:
    """Return a function that serves rewards, with the settings given, and gives a client."""

    def serve(limits: Limits | None = None, endpoint: dict[str, Any] | None = None, **settings: Any) -> Client:
        urls = {"urls": [policy_server.url], "model": "toy", "tokenizer": str(small_world.model)}
        dual = {"endpoint": {**urls, **(endpoint or {})}, **settings.pop("dual", {})}
        make_config(dual=dual, **settings)
        judge, policy = open_judge(Config.load(tmp_path / "cellduality.json"))
        server = RewardServer(judge, policy, TOKEN, limits or Limits())
        return Client(server, serve_app(server.app))

    return serve
