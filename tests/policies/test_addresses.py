"""Requests that fail, addresses that come and go: a real server does what the test scripts."""

from __future__ import annotations

import asyncio
import gzip
import threading
import time
from typing import Any

import pytest

from cellduality_plugin.policies import addresses as room
from cellduality_plugin.policies.addresses import Addresses
from cellduality_plugin.policies.base import PolicyError
from cellduality_plugin.policies.settings import EndpointSettings
from tests.refused import refused

BODY = {"model": "toy", "prompt": [1, 2], "max_tokens": 1}


@pytest.fixture(autouse=True)
def _short_rests(monkeypatch):
    monkeypatch.setattr(room, "FIRST_REST", 0.02)
    monkeypatch.setattr(room, "LONGEST_REST", 0.2)


def post(*urls: str, times: int = 1, **settings: Any) -> list[Any]:
    """Return the replies, or the causes of those that failed."""
    addresses = Addresses(EndpointSettings(urls=urls, model="toy", **{"timeout_seconds": 5.0, **settings}))

    async def ask() -> list[Any]:
        posts = (addresses.ask("/completions", bytes, BODY) for _ in range(times))
        replies = await asyncio.gather(*posts, return_exceptions=True)
        await addresses.close()
        return [reply.cause if isinstance(reply, PolicyError) else reply for reply in replies]

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("fault", "cause", "asked"),
    [
        ({"status": 429, "headers": {"retry-after": "0"}}, "http_429", 2),
        ({"status": 429, "headers": {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}}, "http_429", 2),
        ({"status": 500, "body": b"\xff\xfe"}, "http_5xx", 2),
        ({"cut": True}, "refused", 2),
        ({"body": b"{}", "headers": {"transfer-encoding": "chunked"}}, "refused", 2),  # no chunks follow
        ({"after": 1.5}, "timeout", 2),
        *(({"status": status}, f"http_{status}", 1) for status in (400, 401, 404, 422)),
        ({"status": 429, "body": b'{"error": {"code": "insufficient_quota"}}'}, "http_402", 1),
        ({"status": 429, "headers": {"retry-after": "3600"}}, "http_429", 1),
        ({"status": 503, "headers": {"retry-after": "Wed, 21 Oct 2065 07:28:00 GMT"}}, "http_5xx", 1),
    ],
)
def test_what_may_pass_is_asked_again_and_what_will_not_is_not(policy_server, said, fault, cause, asked):
    policy_server.script = [said(**fault) for _ in range(3)]
    assert post(policy_server.url, timeout_seconds=1.0, retries=1) == [cause]
    assert len(policy_server.script) == 3 - asked


def test_what_a_server_asks_to_wait_holds_for_all_requests(policy_server, said):
    moments, answer = [], policy_server.answer
    policy_server.answer = lambda path, body: (moments.append(time.monotonic()), answer(path, body))[1]
    policy_server.script = [said(status=429, headers={"retry-after": "0.3"})]
    post(policy_server.url, times=3, concurrency=1)
    assert moments[1] - moments[0] >= 0.29
    assert moments[-1] - moments[1] < 0.29


def test_no_more_requests_are_under_way_than_allowed_and_a_server_that_starts_again_costs_none(policy_server):
    policy_server.after, under_way, answer, most = 0.02, [], policy_server.usual, []

    def counted(path: str, body: dict[str, Any]) -> Any:
        under_way.append(None)
        most.append(len(under_way))
        time.sleep(0.005)
        under_way.pop()
        return answer(path, body)

    policy_server.usual = counted
    timers = [threading.Timer(0.1, policy_server.stop), threading.Timer(0.5, policy_server.start)]
    for timer in timers:
        timer.start()
    replies = post(policy_server.url, times=200, concurrency=8, retries=30)
    for timer in timers:
        timer.join()
    assert all(b"choices" in reply for reply in replies)
    assert 1 < max(most) <= 8


def test_a_reply_is_unpacked_and_read_no_further_than_is_good(policy_server, said, monkeypatch):
    monkeypatch.setattr(room, "MAX_BODY", 100_000)
    for size, expected in ((100_000, b" " * 100_000), (10_000_000, "too_large")):
        packed = gzip.compress(b" " * size)
        policy_server.script = [said(body=packed, headers={"content-encoding": "gzip"})]
        assert post(policy_server.url, retries=0) == [expected]


def test_a_proxy_of_the_environment_is_used(policy_server, monkeypatch):
    monkeypatch.setenv("http_proxy", policy_server.url.removeprefix("http://").removesuffix("/v1"))
    assert b"choices" in post("http://nowhere.invalid/v1", retries=0)[0]
    monkeypatch.setenv("no_proxy", "nowhere.invalid")
    assert post("http://nowhere.invalid/v1", retries=0) == ["refused"]


def test_the_key_is_that_of_the_variable_and_nobody_else_sees_it(policy_server, said, monkeypatch, caplog):
    caplog.set_level("DEBUG")
    key = "sk-test-0123456789abcdef"
    monkeypatch.setenv("MY_KEY", key)
    policy_server.script = [said(status=503, body=key.encode()), said(body=f"your header was Bearer {key}".encode())]
    assert post(policy_server.url, key_variable="MY_KEY") == [b"your header was Bearer ***"]
    assert policy_server.keys == {f"Bearer {key}"}
    asks = Addresses(EndpointSettings(urls=(policy_server.url,), model="toy", key_variable="MY_KEY"))
    assert key not in caplog.text + repr(vars(asks))
    for value in ("", "naïve"):
        monkeypatch.setenv("MY_KEY", value)
        with refused("no-key"):
            post(policy_server.url, key_variable="MY_KEY")


def test_what_is_no_address_is_refused_at_once():
    for url in ("127.0.0.1:8000/v1", "ftp://host/v1", "http://", "http://host:port/v1", "http://[1/v1"):
        with refused("no-address"):
            Addresses(EndpointSettings(urls=(url,), model="toy"))
