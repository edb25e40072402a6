"""The reward function that asks servers: one that is slow, one that refuses, one that never comes, one that lies."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.openrlhf_hooks.remote.protocol import TOKEN_VARIABLE
from cellduality_plugin.openrlhf_hooks.reward_client import RewardClient
from tests.refused import refused

ROLLOUT = (["query"], ["prompt"], ["label"])
REPLY = b'{"rewards": 0.5, "scores": 0.5, "extra_logs": {"dual_reward": 0.5}}'


@pytest.fixture(autouse=True)
def _token(monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, "a-token-of-some-length")


@pytest.fixture
def server(serve_app) -> Callable[..., tuple[str, list[Any]]]:
    """Return a function that starts a server with one reply, and gives its address and what it was sent."""

    def make(reply: bytes = REPLY, status: int = 200, after: float = 0.0) -> tuple[str, list[Any]]:
        sent: list[Any] = []

        async def answer(request: Request) -> Response:
            sent.append((request.headers["authorization"], await request.json()))
            await asyncio.sleep(after)
            return Response(reply, status, media_type="application/json")

        return f"http://{serve_app(Starlette(routes=[Route('/', answer, methods=['POST'])]))}/", sent

    return make


def call(urls: list[str], times: int = 1, threads: int = 6, **settings: Any) -> list[dict[str, Any]]:
    """Return the replies to so many rollouts, asked about by so many threads."""
    client = RewardClient(urls, **settings)
    try:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(lambda _: client(*ROLLOUT), range(times)))
    finally:
        client.close()


def test_it_sends_what_openrlhf_sends_and_the_token_and_a_slow_server_gets_few_rollouts(server):
    (fast, by_fast), (slow, by_slow) = server(), server(after=1.0)
    assert call([slow, fast], times=60) == [json.loads(REPLY)] * 60
    body = dict(zip(("query", "prompts", "labels"), ROLLOUT, strict=True))
    assert by_fast[0] == ("Bearer a-token-of-some-length", body)
    assert len(by_fast) + len(by_slow) == 60
    assert 0 < len(by_slow) < 20


@pytest.mark.parametrize(
    ("status", "reply", "code"),
    [
        (401, b"{}", "server-refused"),
        (400, b"{}", "server-refused"),
        (200, REPLY.replace(b"0.5", b"null"), "malformed-reply"),
    ],
)
def test_what_asking_again_does_not_mend_is_said_at_once(status, reply, code, server, caplog):
    url, sent = server(reply, status)
    with refused(code) as error:
        call([url])
    assert ("CELLDUALITY_TOKEN" in error.value.hint) == (status == 401)
    assert len(sent) == 1
    assert "no reward: a server" in caplog.text


def test_patience_ends():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        gone = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    began = time.monotonic()
    with refused("no-server"):
        call([gone], patience=0.7)
    assert 0.7 <= time.monotonic() - began < 5.0


def test_without_a_token_it_does_not_begin(monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE)
    with pytest.raises(CellDualityError, match=TOKEN_VARIABLE):
        RewardClient(["http://127.0.0.1:5000/"])
