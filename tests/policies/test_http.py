"""The HTTP client reads a reply to its end, unpacked, and no further than it may."""

from __future__ import annotations

import asyncio
import gzip

import pytest

from cellduality_plugin.policies.http import BoundedClient, TooLong


def get(url: str, longest: int) -> bytes:
    async def one() -> bytes:
        async with BoundedClient(5.0, longest) as client:
            response = await client.get(f"{url}/anything")
            assert "content-encoding" not in response.headers
            return response.content

    return asyncio.run(one())


def test_a_reply_is_read_whole_and_unpacked(policy_server, said):
    body = b"x" * 100_000
    policy_server.answer = lambda path, asked: said(body=gzip.compress(body), headers={"content-encoding": "gzip"})
    assert get(policy_server.url, len(body)) == body


def test_a_small_body_that_unpacks_without_end_is_not_unpacked(policy_server, said):
    bomb = gzip.compress(b" " * 10_000_000)
    assert len(bomb) < 20_000
    policy_server.answer = lambda path, asked: said(body=bomb, headers={"content-encoding": "gzip"})
    with pytest.raises(TooLong):
        get(policy_server.url, 100_000)
