"""A reward server over a scripted policy, and rollouts to send it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from cellduality_plugin.config import Config
from cellduality_plugin.openrlhf_hooks.remote.judge import open_judge
from cellduality_plugin.openrlhf_hooks.remote.server import RewardServer

TOKEN = "a-token-of-some-length"


@dataclass
class Client:
    """Sends what it is given to one server, in any thread."""

    host: str
    http: httpx.Client

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        sent = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        return self.http.request(method, f"http://{self.host}{path}", content=sent, headers=headers)

    def post(self, body: Any, token: str = TOKEN) -> httpx.Response:
        return self.send("POST", "/", body, Authorization=f"Bearer {token}")

    def metrics(self) -> dict[str, float]:
        page = self.send("GET", "/metrics", Authorization=f"Bearer {TOKEN}").text
        lines = (line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
        return {name.removeprefix("cellduality_"): float(value) for name, value in lines}


@pytest.fixture
def served(make_config, policy_server, small_world, serve_app, tmp_path) -> Iterator[Callable[..., Client]]:
    """Return a function that serves rewards, with the settings given, and gives a client."""

    def serve(endpoint: dict[str, Any] | None = None, limits: Any = None, **settings: Any) -> Client:
        urls = {"urls": [policy_server.url], "model": "toy", "tokenizer": str(small_world.model)}
        dual = {"endpoint": {**urls, **(endpoint or {})}, **settings.pop("dual", {})}
        make_config(dual=dual, **settings)
        judge, policy = open_judge(Config.load(tmp_path / "cellduality.json"))
        return Client(serve_app(RewardServer(judge, policy, TOKEN, **(limits or {})).app), http)

    with httpx.Client(timeout=20, trust_env=False, headers={"Connection": "close"}) as http:
        yield serve
