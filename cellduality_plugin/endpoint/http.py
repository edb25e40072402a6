"""The HTTP client under the openai client: aiohttp, and no reply longer than is good."""

from __future__ import annotations

from typing import Any

import httpx2
from openai import DefaultAioHttpClient

_OF_THE_WIRE = ("content-encoding", "content-length", "transfer-encoding")


class TooLong(Exception):
    """A reply that was not read to its end."""


class BoundedClient(DefaultAioHttpClient):
    """A client that reads so many bytes of a reply at the most, unpacked.

    Parameters
    ----------
    timeout
        Seconds for one request.
    longest
        Bytes; a longer reply raises :class:`TooLong`.
    """

    def __init__(self, timeout: float, longest: int) -> None:
        super().__init__(timeout=timeout)
        self._longest = longest

    async def send(self, request: httpx2.Request, **settings: Any) -> httpx2.Response:
        """Return the response, read."""
        response = await super().send(request, **{**settings, "stream": True})
        content = bytearray()
        try:
            async for part in response.aiter_bytes():
                content += part
                if len(content) > self._longest:
                    raise TooLong
        finally:
            await response.aclose()
        headers = [(name, value) for name, value in response.headers.multi_items() if name not in _OF_THE_WIRE]
        return httpx2.Response(response.status_code, headers=headers, content=bytes(content), request=request)
