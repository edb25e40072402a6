"""The HTTP client under the openai client: aiohttp, and no more work a request than one address needs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2
import openai
import yarl

Turn: TypeAlias = AbstractAsyncContextManager[Callable[[Mapping[str, str]], None]]

_MACHINE = ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async")
_REQUEST = ("Retry-Count", "Read-Timeout")

LEFT_OUT = {f"X-Stainless-{name}": openai.Omit() for name in (*_MACHINE, *_REQUEST)}
"""Headers that tell of the machine and of retries that are not the client's: no endpoint needs them."""


class OneAddressClient(httpx2.AsyncClient):
    """A client that posts every request to the address it was given first, within ``timeout`` seconds each.

    Merging a request with defaults and cookies that there are none of, parsing its address anew, and a response in
    pieces take longer than aiohttp takes to send it and to receive its answer; so this goes straight to aiohttp. What
    goes wrong there is raised as aiohttp raises it.

    A request, once built, is sent in its ``turn`` and tells it the headers of the answer: so the next is ready
    when an answer comes, and leaves before that answer is worked on.
    """

    def __init__(self, timeout: float, turn: Callable[[], Turn]) -> None:
        super().__init__(transport=httpx2.AsyncBaseTransport())  # never used
        self._seconds, self._turn = timeout, turn
        self._session: aiohttp.ClientSession | None = None

    def build_request(
        self, method: str, url: httpx2.URL | str, *, headers: Any = None, content: Any = None, **_: Any
    ) -> httpx2.Request:
        """Return the request; what it consists of is in its extensions, ready for aiohttp."""
        if self._session is None:
            self._open(httpx2.URL(url))
        sent = {"headers": headers, "data": content}
        return httpx2.Request(method, self._address, headers=headers, stream=httpx2.ByteStream(b""), extensions=sent)

    async def send(self, request: httpx2.Request, **_: Any) -> httpx2.Response:
        """Return the response, read to its end."""
        assert self._session is not None
        async with (
            self._turn() as hear,
            self._session.post(self._target, proxy=self._proxy, **request.extensions) as response,
        ):
            hear(response.headers)
            body = await response.read()
        if response.ok:  # what is wrong should be known before anything else is sent
            for _turn in range(2):  # whoever waited for an answer that came with this one goes first, then the next
                await asyncio.sleep(0)
        return httpx2.Response(response.status, headers=response.raw_headers, content=body, request=request)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
        await super().aclose()

    def _open(self, address: httpx2.URL) -> None:
        self._address, self._target, self._proxy = address, yarl.URL(str(address)), _proxy(address)
        secure = httpx2.create_ssl_context() if address.scheme == "https" else True
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=secure),
            timeout=aiohttp.ClientTimeout(self._seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "gzip, deflate"},
            auto_decompress=False,  # the response does
        )


def _proxy(address: httpx2.URL) -> str | None:
    """Return the proxy that the environment names for an address."""
    proxies = getproxies()
    proxy = proxies.get(address.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(address.host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
