"""One model at one address or several: which is asked next, retries, and pauses after failures."""

from __future__ import annotations

import asyncio
import email.utils
import itertools
import json
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import numpy as np
from pydantic import AnyHttpUrl, TypeAdapter, ValidationError

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


class Address:
    """One endpoint, its connections, how many requests it has in hand, and until when it rests.

    Should it quote the ``key`` that it was sent, nobody sees that.
    """

    def __init__(self, url: str, key: str, timeout: float) -> None:
        self.in_flight = 0
        self._url, self._timeout = checked_url(url), timeout
        self._secret = key.encode() if len(key) >= 8 else b""
        self._headers = {"Accept-Encoding": "gzip, deflate", "User-Agent": "cellduality"}
        self._headers |= {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._session: aiohttp.ClientSession | None = None
        self._failures, self._rests_until, self._asked_until = 0, 0.0, 0.0

    @property
    def resumes(self) -> float:
        """When it may be asked again, by the monotonic clock."""
        return max(self._rests_until, self._asked_until)

    def worked(self) -> None:
        self._failures, self._rests_until = 0, 0.0

    def failed(self, wait: float, jitter: float) -> None:
        """Rest as long as it asks, or longer with each failure; of some that fail together only the first counts."""
        now = time.monotonic()
        if now >= self.resumes:
            self._rests_until = now + min(FIRST_REST * 2.0**self._failures, LONGEST_REST) * (0.5 + 0.5 * jitter)
            self._failures = min(self._failures + 1, 16)
        self._asked_until = max(self._asked_until, now + wait)

    async def request(self, path: str, body: bytes | None) -> bytes:
        """Return the body of the reply to a POST of ``body``, or to a GET if it is None; raise a RequestFailed."""
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
        found = bytes(content).replace(self._secret, b"***") if self._secret else bytes(content)
        if not response.ok:
            raise refusal(response.status, response.headers, found)
        return found

    async def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    def _opened(self) -> aiohttp.ClientSession:
        import aiohttp

        # Looked up once: aiohttp's own trust_env reads the whole environment for every request.
        parts, proxies = urlsplit(self._url), getproxies()
        proxy = None if proxy_bypass(parts.hostname or "") else proxies.get(parts.scheme) or proxies.get("all")
        self._proxy = f"http://{proxy}" if proxy and "://" not in proxy else proxy
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(self._timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
        )


class Addresses:
    """Asks the address with the fewest requests in hand, and another one if that fails.

    ``retried`` counts how often a request was asked again, by cause. A CellDualityError is raised if an address is no
    URL, or the key's variable is not set.
    """

    def __init__(self, settings: EndpointSettings) -> None:
        key = read_key(settings.key_variable, "dual.endpoint.key_variable")
        self._addresses = [Address(url, key, settings.timeout_seconds) for url in settings.urls]
        self._retries = settings.retries
        self._turns = asyncio.Semaphore(settings.concurrency)
        self._rng = np.random.default_rng()  # of waiting times alone
        self.retried: Counter[str] = Counter()

    async def post(self, path: str, body: Mapping[str, Any], read: Callable[[bytes], Read]) -> Read:
        """Return what ``read`` makes of the reply to ``body``; a RequestFailed if there is none, or what it raises."""
        return await self._ask(path, json.dumps(body).encode(), read)

    async def get(self, path: str, read: Callable[[bytes], Read], *, patient: bool = True) -> Read:
        """Return what ``read`` makes of the reply; unless ``patient``, of one attempt at once."""
        return await (self._ask(path, None, read) if patient else self._once(self._best(), path, None, read))

    async def close(self) -> None:
        for address in self._addresses:
            await address.close()

    async def _ask(self, path: str, body: bytes | None, read: Callable[[bytes], Read]) -> Read:
        # A turn is kept for all attempts: behind the others, a dead endpoint would be found out late.
        async with self._turns:
            found = await self._tried(path, body, read)
        await asyncio.sleep(0)  # the next request is sent before this reply is worked on
        return found

    async def _tried(self, path: str, body: bytes | None, read: Callable[[bytes], Read]) -> Read:
        for attempt in itertools.count():
            try:
                return await self._once(await self._next(), path, body, read)
            except RequestFailed as failure:
                if not failure.passing or attempt >= self._retries:
                    raise
                self.retried[failure.cause] += 1
        raise AssertionError("never reached")

    async def _once(self, address: Address, path: str, body: bytes | None, read: Callable[[bytes], Read]) -> Read:
        address.in_flight += 1
        try:
            found = read(await address.request(path, body))
        except RequestFailed as failure:
            if failure.passing:
                address.failed(failure.wait, self._rng.random())
            raise
        finally:
            address.in_flight -= 1
        address.worked()
        return found

    def _best(self) -> Address:
        now = time.monotonic()
        return min(self._addresses, key=lambda address: (max(0.0, address.resumes - now), address.in_flight))

    async def _next(self) -> Address:
        """Return the address to ask, once one may be asked."""
        while (wait := (address := self._best()).resumes - time.monotonic()) > 0:
            if wait > LONGEST_WAIT:
                raise RequestFailed("http_429", wait=wait)
            await asyncio.sleep(wait * (1 + 0.1 * self._rng.random()))  # not all at the same moment
        return address


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> RequestFailed:
    """Return what a status other than success means."""
    if b"insufficient_quota" in body:  # with status 429, as if it passed
        status = 402
    cause = "http_5xx" if status >= 500 else f"http_{status}"
    passing = status in _PASSING or status >= 500
    return RequestFailed(cause, error_message(body), wait=_seconds(headers.get("retry-after", "")), passing=passing)


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


def _seconds(retry_after: str) -> float:
    """Return the seconds to wait in a ``retry-after`` header, a number or a date; 0 for none."""
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
