"""One model at one address or several: which is asked next, retries, pauses after failures; and a loop to do it in."""

from __future__ import annotations

import asyncio
import email.utils
import itertools
import json
import math
import os
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import numpy as np
from pydantic import AnyHttpUrl, SecretStr, TypeAdapter, ValidationError

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.policies.base import PolicyError
from cellduality_plugin.policies.settings import EndpointSettings

if TYPE_CHECKING:
    import aiohttp

Read = TypeVar("Read")

FIRST_REST, LONGEST_REST = 0.25, 15.0  # seconds without requests after a failure, doubled by each further one
LONGEST_WAIT = 900.0  # seconds; a server that asks to wait longer, as for tomorrow's allowance, is not asked again
MAX_BODY = 64 * 2**20  # bytes of a reply that are read, unpacked: about 500,000 tokens with their log-probabilities

_PASSING = (408, 409, 425, 429)
_URL = TypeAdapter(AnyHttpUrl)


class RequestFailed(PolicyError):
    """A request without an answer.

    The cause is ``"timeout"``, ``"refused"``, ``"too_large"``, ``"malformed"``, ``"http_5xx"``, ``"http_429"`` and the
    like; ``detail`` what the server said, in one bounded line; ``wait`` the seconds that it asks to wait; ``passing``
    whether it is worth asking again.
    """

    def __init__(self, cause: str, detail: str = "", *, wait: float = 0.0, passing: bool = True) -> None:
        super().__init__(cause)
        self.detail, self.wait, self.passing = detail, wait, passing and wait <= LONGEST_WAIT


@dataclass
class _Address:
    """One endpoint, how many requests it has in hand, and until when it rests (by the monotonic clock)."""

    url: str
    proxy: str | None
    in_flight: int = 0
    failures: int = 0
    rests_until: float = 0.0
    asked_until: float = 0.0  # as its server asks

    @property
    def resumes(self) -> float:
        return max(self.rests_until, self.asked_until)

    def failed(self, wait: float, jitter: float) -> None:
        """Rest as long as it asks, or longer with each failure; of some that fail together only the first counts."""
        now = time.monotonic()
        if now >= self.resumes:
            self.rests_until = now + min(FIRST_REST * 2.0**self.failures, LONGEST_REST) * (0.5 + 0.5 * jitter)
            self.failures = min(self.failures + 1, 16)
        self.asked_until = max(self.asked_until, now + wait)


class Addresses:
    """Asks the address with the fewest requests in hand, and another one if that fails.

    A CellDualityError is raised if an address is no URL, or the key's variable is not set. Should a server quote the
    key, nobody sees that.
    """

    def __init__(self, settings: EndpointSettings) -> None:
        self._key = SecretStr(read_key(settings.key_variable, "dual.endpoint.key_variable"))
        self._addresses = [_Address(url, _proxy(url)) for url in map(checked_url, settings.urls)]
        self._retries, self._timeout = settings.retries, settings.timeout_seconds
        self._turns = asyncio.Semaphore(settings.concurrency)
        self._session: aiohttp.ClientSession | None = None
        self._rng = np.random.default_rng()  # of waiting times alone

    async def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def ask(self, path: str, read: Callable[[bytes], Read], body: Mapping[str, Any] | None = None) -> Read:
        """Return what ``read`` makes of the reply to a POST of ``body``, or to a GET if it is None.

        A RequestFailed is raised if there is none, or what ``read`` raises.
        """
        sent = None if body is None else json.dumps(body).encode()
        # A turn is kept for all attempts: behind the others, a dead endpoint would be found out late.
        async with self._turns:
            for attempt in itertools.count():
                try:
                    found = await self.once(path, read, sent, await self._next())
                    break
                except RequestFailed as failure:
                    if not failure.passing or attempt >= self._retries:
                        raise
        await asyncio.sleep(0)  # the next request is sent before this reply is worked on
        return found

    async def once(
        self, path: str, read: Callable[[bytes], Read], sent: bytes | None = None, at: _Address | None = None
    ) -> Read:
        """Return the same of one attempt, made at once."""
        address = at or self._best()
        address.in_flight += 1
        try:
            found = read(await self._request(address, path, sent))
        except RequestFailed as failure:
            if failure.passing:
                address.failed(failure.wait, self._rng.random())
            raise
        finally:
            address.in_flight -= 1
        address.failures, address.rests_until = 0, 0.0
        return found

    async def _request(self, address: _Address, path: str, body: bytes | None) -> bytes:
        """Return the body of the reply to a POST of ``body``, or to a GET if it is None; raise a RequestFailed."""
        import aiohttp
        import yarl

        session = self._session = self._session or self._opened()
        method, target = "GET" if body is None else "POST", yarl.URL(address.url + path)
        key, content = self._key.get_secret_value(), bytearray()
        if key:
            target = target.with_user(None)
        try:
            async with session.request(method, target, data=body, proxy=address.proxy) as response:
                async for part in response.content.iter_any():
                    content += part
                    if len(content) > MAX_BODY:
                        response.close()
                        raise RequestFailed("too_large")
        except asyncio.TimeoutError:
            raise RequestFailed("timeout") from None
        except (aiohttp.ClientError, OSError) as error:
            raise RequestFailed("refused", type(error).__name__) from None
        found = bytes(content.replace(key.encode(), b"***") if len(key) >= 8 else content)
        if response.ok:
            return found
        # With status 429, as if it passed.
        status = 402 if b"insufficient_quota" in found else response.status
        cause, passing = "http_5xx" if status >= 500 else f"http_{status}", status in _PASSING or status >= 500
        raise RequestFailed(cause, error_message(found), wait=_seconds(response.headers), passing=passing)

    def _opened(self) -> aiohttp.ClientSession:
        import aiohttp

        headers = {"Accept-Encoding": "gzip, deflate", "User-Agent": "cellduality", "Content-Type": "application/json"}
        key = self._key.get_secret_value()
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(self._timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers | ({"Authorization": f"Bearer {key}"} if key else {}),
        )

    def _best(self) -> _Address:
        now = time.monotonic()
        return min(self._addresses, key=lambda address: (max(0.0, address.resumes - now), address.in_flight))

    async def _next(self) -> _Address:
        """Return the address to ask, once one may be asked."""
        while (wait := (address := self._best()).resumes - time.monotonic()) > 0:
            if wait > LONGEST_WAIT:
                raise RequestFailed("http_429", wait=wait)
            await asyncio.sleep(wait * (1 + 0.1 * self._rng.random()))  # not all at the same moment
        return address


def _proxy(url: str) -> str | None:
    """Return the proxy of the environment for an address (aiohttp would read all of that for every request)."""
    parts, proxies = urlsplit(url), getproxies()
    proxy = None if proxy_bypass(parts.hostname or "") else proxies.get(parts.scheme) or proxies.get("all")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


class LoopThread:
    """Runs coroutines in its loop. Its thread starts with the first one: the process may fork until then."""

    def __init__(self, name: str) -> None:
        self._loop, self._starting = asyncio.new_event_loop(), threading.Lock()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)

    def submit(self, work: Coroutine[Any, Any, Read]) -> Future[Read]:
        """Begin ``work``, and return its result to come."""
        with self._starting:
            if not self._thread.is_alive():
                self._thread.start()
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self, *ends: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """End the loop, after what closes its connections."""
        if self._thread.is_alive():
            for end in ends:
                self.submit(end()).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()


def read_json(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a body; a PolicyError, ``"malformed"``, if it holds none."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):  # not JSON, or not even text
        content = None
    if not isinstance(content, dict):
        raise PolicyError("malformed")
    return content


def part_of(content: Any, *path: str | int) -> Any:
    """Return what stands at a path in JSON; None if nothing does."""
    for step in path:
        try:
            content = content[step]
        except (KeyError, IndexError, TypeError):
            return None
    return content


def error_message(body: bytes) -> str:
    """Return what an error body says, in one bounded line; empty if it says nothing."""
    try:
        said: Any = read_json(body)
    except PolicyError:
        return ""
    for _ in range(3):
        if isinstance(said, dict):
            said = said.get("error") or said.get("message") or said.get("detail")
    return " ".join(said.split())[:200] if isinstance(said, str) else ""


def _seconds(headers: Mapping[str, str]) -> float:
    """Return the seconds to wait in the header ``retry-after``, a number or a date; 0 for none."""
    retry_after = headers.get("retry-after", "")
    try:
        wait = float(retry_after)
    except ValueError:
        try:
            wait = email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (TypeError, ValueError, IndexError, OverflowError):
            return 0.0
    return max(0.0, wait) if math.isfinite(wait) else 0.0


def checked_url(url: str, where: str = "endpoint") -> str:
    """Return an http address without slashes at its end, or raise a CellDualityError if it is none."""
    try:
        return str(_URL.validate_python(url)).rstrip("/")
    except ValidationError:
        what, hint = f"{url!r:.80} is no http address", "write it as http://host:8000/v1"
        raise CellDualityError(what, code="no-address", where=where, hint=hint) from None


def read_key(variable: str | None, where: str) -> str:
    """Return the key that an environment variable holds; empty if none is named.

    A CellDualityError, which never shows the value, is raised if it is not set, or holds what no header can carry.
    """
    key = os.environ.get(variable, "").strip() if variable else ""
    if (variable and not key) or not key.isascii() or not key.isprintable():
        what, hint = "holds what no key holds" if key else "is not set", "set it to the key alone, on every machine"
        raise CellDualityError(f"{variable} {what}", code="no-key", where=where, hint=f"{hint} that asks the endpoint")
    return key
