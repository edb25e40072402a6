"""Requests that fail, addresses that come and go: a real server does what the test scripts."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from cellduality_plugin.policies.settings import EndpointSettings
from cellduality_plugin.policies import addresses as room
from cellduality_plugin.policies import http
from cellduality_plugin.policies.addresses import Addresses
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.policies.base import PolicyError

BODY = {"model": "toy", "prompt": [1, 2], "max_tokens": 1}


@pytest.fixture(autouse=True)
def _short_rests(monkeypatch):
    monkeypatch.setattr(room, "FIRST_REST", 0.02)
    monkeypatch.setattr(room, "LONGEST_REST", 0.2)


def post(*urls: str, times: int = 1, **settings: Any) -> tuple[list[Any], Addresses]:
    """Return the replies, or the causes of those that failed, and who was asked."""
    chosen = EndpointSettings(urls=urls, model="toy", **{"timeout_seconds": 5.0, **settings})

    async def ask() -> tuple[list[Any], Addresses]:
        addresses = Addresses(chosen)
        try:
            posts = (addresses.post("/completions", BODY) for _ in range(times))
            replies = await asyncio.gather(*posts, return_exceptions=True)
        finally:
            await addresses.close()
        return [reply.cause if isinstance(reply, PolicyError) else reply for reply in replies], addresses

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ({"status": 429, "headers": {"retry-after": "0"}}, "http_429"),
        ({"status": 429, "headers": {"retry-after": "Wed, 21 Oct 2065 07:28:00 GMT"}}, "http_429"),
        ({"status": 503}, "http_5xx"),
        ({"status": 500, "body": b"\xff\xfe"}, "http_5xx"),
        ({"cut": True}, "refused"),
        ({"after": 1.5}, "timeout"),
    ],
)
def test_what_may_pass_is_asked_again(policy_server, said, fault, cause):
    policy_server.script = [said(**fault)]
    [reply], addresses = post(policy_server.url, timeout_seconds=1.0)
    assert b"choices" in reply
    assert addresses.retried == {cause: 1}
    policy_server.script = [said(**fault) for _ in range(2)]
    [failed], _ = post(policy_server.url, timeout_seconds=1.0, retries=1)
    assert failed == cause


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_what_will_not_pass_is_asked_once(policy_server, said, status):
    policy_server.script = [said(status=status)]
    [failed], addresses = post(policy_server.url)
    assert failed == f"http_{status}"
    assert not addresses.retried
    assert len(policy_server.asked) == 1


def test_a_server_that_is_killed_and_started_again_costs_no_answer(policy_server):
    policy_server.after = 0.02
    policy_server.start, again = policy_server.start, policy_server.start

    def bounce() -> None:
        time.sleep(0.1)
        policy_server.stop()
        time.sleep(0.4)
        again()

    bouncing = threading.Thread(target=bounce)
    bouncing.start()
    replies, addresses = post(policy_server.url, times=200, concurrency=8, retries=30)
    bouncing.join()
    assert all(b"choices" in reply for reply in replies)
    assert addresses.retried["refused"] > 0


def test_addresses_share_the_load_and_the_slow_one_gets_less_of_it(policy_servers):
    slow, fast = policy_servers(), policy_servers()
    slow.after = 0.2
    replies, _ = post(slow.url, fast.url, times=60, concurrency=6)
    assert all(b"choices" in reply for reply in replies)
    assert 0 < len(slow.asked) < len(fast.asked)
    assert len(slow.asked) + len(fast.asked) == 60


def test_an_address_that_fails_is_passed_over(policy_servers):
    gone, there = policy_servers(), policy_servers()
    gone.stop()
    replies, addresses = post(gone.url, there.url, times=40, concurrency=4)
    assert all(b"choices" in reply for reply in replies)
    assert len(there.asked) == 40
    assert 0 < addresses.retried["refused"] < 20


def test_no_more_requests_are_under_way_than_allowed(policy_server):
    under_way, most = [0], [0]
    answer, lock = policy_server.answer, threading.Lock()

    def counted(path: str, body: dict[str, Any]) -> Any:
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        time.sleep(0.01)
        said = answer(path, body)
        with lock:
            under_way[0] -= 1
        return said

    policy_server.answer = counted
    post(policy_server.url, times=30, concurrency=3)
    assert most[0] <= 3


def test_a_reply_without_end_is_not_read_to_it(policy_server, said, monkeypatch):
    monkeypatch.setattr(http, "MAX_BODY", 100_000)
    policy_server.script = [said(body=b" " * 200_000)]
    [failed], _ = post(policy_server.url, retries=0)
    assert failed == "too_large"


def test_the_key_is_that_of_the_variable_and_is_told_to_nobody_else(policy_server, said, monkeypatch, caplog):
    caplog.set_level("DEBUG")
    key = "sk-test-0123456789abcdef"
    monkeypatch.setenv("MY_KEY", key)
    policy_server.script = [said(status=503)]
    post(policy_server.url, key_variable="MY_KEY")
    assert policy_server.keys == {f"Bearer {key}"}
    assert key not in caplog.text
    assert key not in repr(post(policy_server.url, key_variable="MY_KEY")[1].__dict__)
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(CellDualityError, match="MY_KEY is not set"):
        post(policy_server.url, key_variable="MY_KEY")


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000/v1", "ftp://host/v1", "http://", "http://host:port/v1", "http://[1/v1"]
)
def test_what_is_no_address_is_said_at_once(url):
    with pytest.raises(CellDualityError, match="is no http address"):
        Addresses(EndpointSettings(urls=(url,), model="toy"))
