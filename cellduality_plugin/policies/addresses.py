"""One model at one address or several: who is asked next, how often, and who is left alone for a while."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from cellduality_plugin.policies.http import LONGEST_WAIT, HttpClient, RequestFailed, checked_url, read_key, until_reset
from cellduality_plugin.policies.settings import EndpointSettings

Read = TypeVar("Read")

FIRST_REST, LONGEST_REST = 0.25, 15.0
"""Seconds an address is left alone after it failed once, doubled with each further failure, and at the most."""


class Address:
    """One endpoint: how many requests it has in hand, and until when it is left alone."""

    def __init__(self, url: str, key: str, timeout: float) -> None:
        self.client, self.in_flight = HttpClient(url, key, timeout), 0
        self._failures, self._rests_until, self._told_until = 0, 0.0, 0.0

    @property
    def resumes(self) -> float:
        """When it may be asked again, by the monotonic clock."""
        return max(self._rests_until, self._told_until)

    def worked(self, wait: float) -> None:
        """Take note of a request that was answered, and of an allowance that is used up for ``wait`` seconds."""
        self._failures, self._rests_until = 0, 0.0
        self._told_until = max(self._told_until, time.monotonic() + wait)

    def failed(self, wait: float, jitter: float) -> None:
        """Leave the address alone for as long as it asks, or longer with each failure.

        Of requests that fail together only the first counts.
        """
        now = time.monotonic()
        if now >= self.resumes:
            self._rests_until = now + min(FIRST_REST * 2.0**self._failures, LONGEST_REST) * (0.5 + 0.5 * jitter)
            self._failures = min(self._failures + 1, 16)
        self._told_until = max(self._told_until, now + wait)


class Addresses:
    """Asks the address with the fewest requests in hand, and another one if that fails.

    Parameters
    ----------
    settings
        The addresses, the name of the variable with their key, how many requests may be under way and how often one
        is asked again.
    key
        The key itself, in place of that of the variable.

    Attributes
    ----------
    retried
        How often a request was asked again, by cause.

    Raises
    ------
    CellDualityError
        If an address is none, or the key's variable is not set.
    """

    def __init__(self, settings: EndpointSettings, key: str | None = None) -> None:
        if key is None:
            key = read_key(settings.key_variable, "dual.endpoint.key_variable")
        self._addresses = [Address(checked_url(url), key, settings.timeout_seconds) for url in settings.urls]
        self._retries = settings.retries
        self._turns = asyncio.Semaphore(settings.concurrency)
        self._rng = np.random.default_rng()  # of waiting times alone
        self._stopped: Exception | None = None
        self.retried: Counter[str] = Counter()

    async def post(self, path: str, body: Mapping[str, Any], read: Callable[[bytes], Read]) -> Read:
        """Return what ``read`` makes of the reply to ``body``.

        Raises
        ------
        PolicyError
            If no address answered, however often they were asked; if one said that the request is wrong; or what
            ``read`` raises.
        """
        return await self._ask(path, json.dumps(body).encode(), read)

    async def get(self, path: str, read: Callable[[bytes], Read], *, patient: bool = True) -> Read:
        """Return what ``read`` makes of the reply; unless ``patient``, of one attempt at once."""
        return await (self._ask(path, None, read) if patient else self._once(self._best(), path, None, read))

    def stop(self, error: Exception) -> None:
        """Have no other request leave: those that wait for their turn raise ``error``."""
        self._stopped = error

    async def close(self) -> None:
        """Close all connections; the next request opens new ones."""
        for address in self._addresses:
            await address.client.close()

    async def _ask(self, path: str, body: bytes | None, read: Callable[[bytes], Read]) -> Read:
        for attempt in itertools.count():
            try:
                async with self._turns:  # chosen when its turn comes, by what is known then
                    address = await self._next()
                    if self._stopped:
                        raise self._stopped
                    found = await self._once(address, path, body, read)
                await asyncio.sleep(0)  # whoever waits for a turn sends before this reply is worked on
                return found
            except RequestFailed as failure:
                if not failure.passing or attempt >= self._retries:
                    raise
                self.retried[failure.cause] += 1
        raise AssertionError("never reached")

    async def _once(self, address: Address, path: str, body: bytes | None, read: Callable[[bytes], Read]) -> Read:
        address.in_flight += 1
        try:
            reply, headers = await address.client.request(path, body)
            found = read(reply)
        except RequestFailed as failure:
            if failure.passing:
                address.failed(failure.wait, self._rng.random())
            raise
        finally:
            address.in_flight -= 1
        address.worked(until_reset(headers))
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
