"""One model at one address or several: who is asked next, how often, and who is passed over for a while."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import time
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from cellduality_plugin.dual_settings import EndpointSettings
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.policy import PolicyError

if TYPE_CHECKING:
    import openai

MAX_BODY = 64 * 2**20
"""Bytes of a reply that are read: about 500,000 tokens with their log-probabilities."""

FIRST_REST, LONGEST_REST = 0.25, 15.0
"""Seconds an address is left alone after it failed once, doubled with each further failure, and at the most."""


class Fault(PolicyError):
    """A request without an answer; ``passing`` says whether it is worth asking again, ``wait`` when at the earliest."""

    def __init__(self, cause: str, *, passing: bool = True, wait: float = 0.0) -> None:
        super().__init__(cause)
        self.passing, self.wait = passing, wait


class Address:
    """One endpoint: how many requests it has in hand, and until when it is left alone."""

    def __init__(self, url: str, key: str, timeout: float) -> None:
        self.url, self.in_flight, self.resumes = url, 0, 0.0
        self._key, self._timeout, self._failures = key, timeout, 0
        self._client: openai.AsyncOpenAI | None = None

    @property
    def client(self) -> openai.AsyncOpenAI:
        """The connections, opened by the first request."""
        import openai

        from cellduality_plugin.endpoint.http import BoundedClient

        if self._client is None:
            self._client = openai.AsyncOpenAI(
                api_key=self._key or "none",  # the client sends something in any case
                base_url=self.url,
                timeout=self._timeout,
                max_retries=0,  # another address may be asked instead
                http_client=BoundedClient(self._timeout, MAX_BODY),
            )
        return self._client

    def worked(self) -> None:
        """Take note of a request that was answered."""
        self._failures, self.resumes = 0, 0.0

    def failed(self, wait: float, jitter: float) -> None:
        """Leave the address alone for a while; of requests that fail together only the first counts."""
        now = time.monotonic()
        if now >= self.resumes:
            back_off = min(FIRST_REST * 2.0**self._failures, LONGEST_REST) * (0.5 + 0.5 * jitter)
            self._failures = min(self._failures + 1, 16)
            self.resumes = now + max(back_off, min(wait, LONGEST_REST))

    async def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()


class Addresses:
    """Asks the address with the fewest requests in hand, and another one if that fails.

    Parameters
    ----------
    settings
        The addresses, the name of the variable with their key, how many requests may be under way and how often one
        is asked again.

    Attributes
    ----------
    retried
        How often a request was asked again, by cause.

    Raises
    ------
    CellDualityError
        If an address is none, or the key's variable is not set.
    """

    def __init__(self, settings: EndpointSettings) -> None:
        key = _key(settings.key_variable)
        self._addresses = [Address(_checked(url), key, settings.timeout_seconds) for url in settings.urls]
        self._retries = settings.retries
        self._turns = asyncio.Semaphore(settings.concurrency)
        self._rng = np.random.default_rng()  # of waiting times alone
        self.retried: Counter[str] = Counter()

    async def post(self, path: str, body: Mapping[str, Any]) -> bytes:
        """Return the body of the reply to ``body``.

        Raises
        ------
        PolicyError
            If no address answered, however often they were asked: ``"timeout"``, ``"refused"``, ``"http_429"``,
            ``"http_5xx"``, ``"too_large"``; or if one said that the request is wrong: ``"http_400"`` and the like.
        """
        return await self._ask("POST", path, body)

    async def get(self, path: str, *, patient: bool = True) -> bytes:
        """Return the body of the reply; unless ``patient``, of one attempt at once. Raises as :meth:`post` does."""
        if patient:
            return await self._ask("GET", path, None)
        try:
            return await self._once(self._best(), "GET", path, None)
        except Fault as fault:
            raise PolicyError(fault.cause) from None

    async def close(self) -> None:
        """Close all connections."""
        for address in self._addresses:
            await address.close()

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> bytes:
        for attempt in itertools.count():
            try:
                async with self._turns:  # chosen when its turn comes, by what is known then
                    return await self._once(await self._next(), method, path, body)
            except Fault as fault:
                if not fault.passing or attempt >= self._retries:
                    raise PolicyError(fault.cause) from None
                self.retried[fault.cause] += 1
        raise AssertionError("never reached")

    async def _once(self, address: Address, method: str, path: str, body: Mapping[str, Any] | None) -> bytes:
        address.in_flight += 1
        try:
            reply = await _exchange(address.client, method, path, body)
        except Fault as fault:
            if fault.passing:
                address.failed(fault.wait, self._rng.random())
            raise
        finally:
            address.in_flight -= 1
        address.worked()
        return reply

    def _best(self) -> Address:
        now = time.monotonic()
        return min(self._addresses, key=lambda address: (max(0.0, address.resumes - now), address.in_flight))

    async def _next(self) -> Address:
        """Return the address to ask, once one may be asked."""
        while (wait := (address := self._best()).resumes - time.monotonic()) > 0:
            await asyncio.sleep(wait * (1 + 0.1 * self._rng.random()))  # not all at the same moment
        return address


async def _exchange(client: openai.AsyncOpenAI, method: str, path: str, body: Mapping[str, Any] | None) -> bytes:
    """Return the body of one reply, or raise what is wrong with it."""
    import aiohttp
    import httpx2
    import openai

    from cellduality_plugin.endpoint.http import TooLong

    try:
        if method == "GET":
            response = await client.get(path, cast_to=httpx2.Response)
        else:
            # The raw response: typed models of a reply would double the work, and read it less strictly.
            response = await client.post(path, body=body, cast_to=httpx2.Response)
    except openai.APIStatusError as error:
        raise _refusal(error) from None
    except (openai.APIConnectionError, aiohttp.ClientError, httpx2.HTTPError, asyncio.TimeoutError, OSError) as error:
        raise Fault(_what_went_wrong(error)) from None
    except TooLong:
        raise Fault("too_large") from None
    return bytes(response.content)


def _what_went_wrong(error: BaseException | None) -> str:
    """Return why an exchange came to no end: the client itself calls a refused connection a timeout."""
    import aiohttp

    while error is not None:
        if isinstance(error, asyncio.TimeoutError):
            return "timeout"
        if isinstance(error, aiohttp.ClientError):
            return "refused"
        error = error.__cause__
    return "refused"


def _refusal(error: openai.APIStatusError) -> Fault:
    """Return what a status other than success means."""
    status = error.status_code
    cause = "http_5xx" if status >= 500 else f"http_{status}"
    try:
        wait = float(error.response.headers.get("retry-after", 0.0))
    except ValueError:  # a date: the back-off will do
        wait = 0.0
    wait = wait if math.isfinite(wait) else 0.0
    return Fault(cause, passing=status in (408, 409, 425, 429) or status >= 500, wait=max(0.0, wait))


def _key(variable: str | None) -> str:
    if not variable:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise CellDualityError(
            f"{variable} is not set, or holds what no key holds",
            where="dual.endpoint.key_variable",
            mend="set it to the key alone, on every machine that asks the endpoint",
        )
    return key


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good:
        raise CellDualityError(
            f"{url!r:.80} is no http address", where="endpoint", mend="write it as http://host:8000/v1"
        )
    return url.rstrip("/")
