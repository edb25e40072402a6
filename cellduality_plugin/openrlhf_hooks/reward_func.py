"""OpenRLHF's ``reward_func``: rollouts are judged here, by a policy behind an endpoint, or by reward servers."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.openrlhf_hooks.remote.judge import OPENRLHF_WAITS, open_judge
from cellduality_plugin.openrlhf_hooks.remote.protocol import TOKEN_VARIABLE, Malformed, read_reply, reply
from cellduality_plugin.policies.addresses import Addresses, LoopThread
from cellduality_plugin.policies.base import PolicyError
from cellduality_plugin.policies.settings import EndpointSettings

PATIENCE = 1800.0  # seconds for which a rollout waits for a server to come back, before the run ends
_LOG = logging.getLogger(__name__)


class FromThreads:
    """Call it with queries, prompts and labels, as OpenRLHF does with one rollout, in a thread of its own for each.

    All threads wait for one event loop, where ``reply`` answers: so they share connections, which ``end`` closes.
    """

    def __init__(
        self, reply: Callable[..., Coroutine[Any, Any, dict[str, Any]]], end: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        self._reply, self._end, self._loop = reply, end, LoopThread("cellduality rewards")

    def __call__(self, queries: Sequence[str], prompts: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
        """Return ``rewards``, ``scores`` and ``extra_logs`` of the rollouts, none of them None or NaN."""
        try:
            return self._loop.submit(self._reply(queries, prompts, labels)).result()
        except BaseException as error:
            # OpenRLHF notes what is raised here in a line at INFO, and goes on without a reward until it cannot.
            _LOG.error("no reward: %s", error)
            raise

    def close(self) -> None:
        """Close the connections and end the loop."""
        self._loop.close(self._end)


class RewardFunction(FromThreads):
    """Judges rollouts here, and asks the endpoint of the configuration to play the dual.

    The configuration file is by default the one that ``CELLDUALITY_CONFIG`` names. A CellDualityError is raised if the
    configuration names no endpoint, or asks for what a remote reward cannot do.
    """

    def __init__(self, config_path: str | os.PathLike[str] | None = None) -> None:
        self._judge, policy = open_judge(Config.load(config_path))
        super().__init__(self._judged, policy.close)

    async def _judged(self, queries: Sequence[str], prompts: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
        rollouts = [self._judge.rollout(*rollout) for rollout in zip(queries, prompts, labels, strict=True)]
        return reply(list(await asyncio.gather(*map(self._judge.score, rollouts))))


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
            return await asyncio.wait_for(self._servers.ask("/", read, body), self._patience)
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
