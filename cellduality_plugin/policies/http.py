"""HTTP with JSON bodies: one client, what can go wrong with a request, and how long a server asks to wait."""

from __future__ import annotations

import asyncio
import email.utils
import json
import math
import os
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.policies.base import PolicyError

if TYPE_CHECKING:
    import aiohttp

MAX_BODY = 64 * 2**20
"""Bytes of a reply that are read, unpacked: about 500,000 tokens with their log-probabilities."""

LONGEST_WAIT = 900.0
"""Seconds; a server that asks to wait longer, as for tomorrow's allowance, is not asked again."""

_PASSING = (408, 409, 425, 429)


class RequestFailed(PolicyError):
    """A request without an answer.

    Parameters
    ----------
    cause
        ``"timeout"``, ``"refused"``, ``"too_large"``, ``"malformed"``, ``"http_5xx"`` or ``"http_429"`` and the like.
    detail
        What the server said, in one bounded line.
    wait
        Seconds that it asks to wait before the next request.
    passing
        Whether it is worth asking again.
    """

    def __init__(self, cause: str, detail: str = "", *, wait: float = 0.0, passing: bool = True) -> None:
        super().__init__(cause)
        self.detail, self.wait, self.passing = detail, wait, passing and wait <= LONGEST_WAIT


class HttpClient:
    """The connections to one address, opened by the first request and again after :meth:`close`.

    Parameters
    ----------
    url
        A checked address (:func:`checked_url`), to which paths are appended.
    key
        Sent as a bearer token; empty for none.
    timeout
        Seconds for one request.
    """

    def __init__(self, url: str, key: str, timeout: float) -> None:
        self._url, self._timeout = url, timeout
        self._headers = {"Accept-Encoding": "gzip, deflate", "User-Agent": "cellduality"}
        self._headers |= {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._session: aiohttp.ClientSession | None = None

    async def request(self, path: str, body: bytes | None) -> tuple[bytes, Mapping[str, str]]:
        """Return body and headers of the reply to a POST of ``body``, or to a GET if it is None.

        Raises
        ------
        RequestFailed
            If there is none, or its status is not success.
        """
        import aiohttp
        import yarl

        session = self._session = self._session or self._opened()
        method, target = "GET" if body is None else "POST", yarl.URL(self._url + path)
        if "Authorization" in self._headers:
            target = target.with_user(None)
        try:
            async with session.request(method, target, data=body, proxy=self._proxy) as response:
                content = bytearray()
                async for part in response.content.iter_any():
                    content += part
                    if len(content) > MAX_BODY:
                        response.close()
                        raise RequestFailed("too_large")
        except asyncio.TimeoutError:
            raise RequestFailed("timeout") from None
        except (aiohttp.ClientError, OSError) as error:
            raise RequestFailed("refused", type(error).__name__) from None
        if not response.ok:
            raise refusal(response.status, response.headers, bytes(content))
        return bytes(content), response.headers

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    def _opened(self) -> aiohttp.ClientSession:
        import aiohttp

        parts = urlsplit(self._url)
        proxies = getproxies()
        proxy = None if proxy_bypass(parts.hostname or "") else proxies.get(parts.scheme) or proxies.get("all")
        self._proxy = f"http://{proxy}" if proxy and "://" not in proxy else proxy
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(self._timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
        )


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> RequestFailed:
    """Return what a status other than success means.

    Examples
    --------
    >>> failed = refusal(429, {"retry-after": "2"}, b'{"error": {"message": "slow down"}}')
    >>> failed.cause, failed.detail, failed.wait, failed.passing
    ('http_429', 'slow down', 2.0, True)
    """
    if b"insufficient_quota" in body:  # with status 429, as if it passed
        status = 402
    cause = "http_5xx" if status >= 500 else f"http_{status}"
    passing = status in _PASSING or status >= 500
    return RequestFailed(cause, error_message(body), wait=retry_after(headers), passing=passing)


def error_message(body: bytes) -> str:
    """Return what an error body says, in one bounded line; empty if it says nothing.

    Examples
    --------
    >>> error_message(b'{"error": {"message": "model is overloaded", "type": "server_error"}}')
    'model is overloaded'
    """
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    for _ in range(3):
        if isinstance(said, dict):
            said = said.get("error") or said.get("message") or said.get("detail")
    return " ".join(said.split())[:200] if isinstance(said, str) else ""


def retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds that ``retry-after-ms`` or ``retry-after`` (seconds or a date) asks to wait; 0 for none.

    Examples
    --------
    >>> retry_after({"retry-after-ms": "250", "retry-after": "1"}), retry_after({"retry-after": "soon"})
    (0.25, 0.0)
    """
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        if (seconds := _seconds(headers.get(name, ""))) is not None:
            return seconds * unit
    try:
        moment = email.utils.parsedate_to_datetime(headers.get("retry-after", "")).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return 0.0
    return max(0.0, moment - time.time())


def until_reset(headers: Mapping[str, str]) -> float:
    """Return the seconds until every allowance that these headers call used up is there again; 0 if none is.

    Examples
    --------
    >>> until_reset({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m0.5s"})
    60.5
    >>> until_reset({"x-ratelimit-remaining-tokens": "7", "x-ratelimit-reset-tokens": "6s"})
    0.0
    """
    waits = [0.0]
    for what in ("requests", "tokens"):
        if _seconds(headers.get(f"x-ratelimit-remaining-{what}", "")) == 0:
            waits.append(_span(headers.get(f"x-ratelimit-reset-{what}", "")))
    return max(waits)


_UNITS = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|d|h|m|s)")


def _span(text: str) -> float:
    """Return the seconds in a span such as ``6m0s``, ``20ms`` or ``1.5``; 0 if it is none."""
    if _PART.sub("", text.strip()):
        return _seconds(text) or 0.0
    return _seconds(sum(float(count) * _UNITS[unit] for count, unit in _PART.findall(text))) or 0.0


def _seconds(value: str | float) -> float | None:
    """Return the number in ``value``, None unless a clock can count it."""
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if seconds >= 0 and math.isfinite(seconds) else None


def checked_url(url: str, where: str = "endpoint") -> str:
    """Return an http address without slashes at its end, or raise a CellDualityError if it is none."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good:
        raise CellDualityError(f"{url!r:.80} is no http address", where=where, hint="write it as http://host:8000/v1")
    return url.rstrip("/")


def read_key(variable: str | None, where: str, *, needed: bool = True) -> str:
    """Return the key that an environment variable holds; empty if there is none and none is ``needed``.

    Raises
    ------
    CellDualityError
        If it is needed and not set, or holds what no header can carry. The value itself is never shown.
    """
    key = os.environ.get(variable, "").strip() if variable else ""
    missing = not key and bool(variable) and needed
    if missing or not key.isascii() or not key.isprintable():
        what = "is not set" if missing else "holds what no key holds"
        raise CellDualityError(
            f"{variable} {what}", where=where, hint="set it to the key alone, on every machine that asks the endpoint"
        )
    return key
