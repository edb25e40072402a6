"""OpenRLHF's ``reward_func``, judged by reward servers, of which any may be away for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.openrlhf_hooks.remote.judge import OPENRLHF_WAITS
from cellduality_plugin.openrlhf_hooks.remote.protocol import TOKEN_VARIABLE, Malformed, read_reply
from cellduality_plugin.openrlhf_hooks.reward_func import FromThreads
from cellduality_plugin.policies.addresses import Addresses
from cellduality_plugin.policies.base import PolicyError
from cellduality_plugin.policies.settings import EndpointSettings

PATIENCE = 1800.0
"""Seconds for which a rollout waits for a server to come back. A step that waits is lost time, a run that ends more."""


class RewardClient(FromThreads):
    """Asks the server with the fewest rollouts in hand, another if that fails, and waits ``patience`` seconds for one.

    ``urls`` are of servers that ``cellduality serve-reward`` started with one configuration and the token of
    ``CELLDUALITY_TOKEN``.
    """

    def __init__(self, urls: Sequence[str], *, patience: float = PATIENCE) -> None:
        self._urls, self._patience = tuple(urls), patience
        settings = EndpointSettings(
            urls=self._urls,
            model="reward",
            key_variable=TOKEN_VARIABLE,
            concurrency=1024,  # no bound: OpenRLHF has one of its own, its threads
            retries=1_000_000,  # until patience ends
            timeout_seconds=OPENRLHF_WAITS,
        )
        self._servers = Addresses(settings)
        super().__init__(self._asked, self._servers.close)

    async def _asked(self, queries: Sequence[str], prompts: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
        body = {"query": list(queries), "prompts": list(prompts), "labels": list(labels)}
        try:
            read = partial(read_reply, rollouts=len(queries))
            return await asyncio.wait_for(self._servers.post("/", body, read), self._patience)
        except asyncio.TimeoutError:
            what, hint = f"none answered within {self._patience:g} s", "start one again, then the run with RESUME=1"
            code = "no-server"
        except Malformed as error:
            what, code, hint = f"a server's reply is malformed: {error}", "malformed-reply", "see the server's log"
        except PolicyError as error:
            what, code, hint = f"a server refused a rollout: {error.cause}", "server-refused", "see the server's log"
            if error.cause == "http_401":
                hint = f"set {TOKEN_VARIABLE} to the servers' token"
        raise CellDualityError(what, code=code, where=", ".join(self._urls), hint=hint)
