"""OpenRLHF's ``reward_func``, judged by a policy behind an endpoint: neither a server nor an agent of ours."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from cellduality_plugin.config import Config
from cellduality_plugin.openrlhf_hooks.remote.protocol import reply
from cellduality_plugin.openrlhf_hooks.remote.serving import open_judge

_LOG = logging.getLogger(__name__)


class FromThreads(ABC):
    """Call it with queries, prompts and labels, as OpenRLHF does, in any thread.

    OpenRLHF calls it with one rollout, in a thread of its own for each; all of them wait for the one event loop here,
    so that they share connections and what is known of the other side.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()

    def __call__(self, queries: Sequence[str], prompts: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
        """Return ``rewards``, ``scores`` and ``extra_logs`` of the rollouts, none of them None or NaN."""
        try:
            asking = self._replied(queries, prompts, labels)
            return asyncio.run_coroutine_threadsafe(asking, self._running()).result()
        except BaseException as error:
            # OpenRLHF notes what is raised here in a line at INFO, and goes on without a reward until it cannot.
            _LOG.error("no reward: %s", error)
            raise

    def close(self) -> None:
        """Close the connections and end the loop; the next call starts another."""
        with self._starting:
            loop, self._loop = self._loop, None
        if loop is not None:
            asyncio.run_coroutine_threadsafe(self._closed(), loop).result()
            loop.call_soon_threadsafe(loop.stop)

    @abstractmethod
    async def _replied(self, queries: Sequence[str], prompts: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
        """Return the reply."""

    @abstractmethod
    async def _closed(self) -> None:
        """Close the connections."""

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_run, args=(self._loop,), name="cellduality rewards", daemon=True).start()
            return self._loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


class RewardFunction(FromThreads):
    """Judges rollouts here, and asks the endpoint of the configuration to play the dual.

    The configuration file is by default the one that ``CELLDUALITY_CONFIG`` names. A CellDualityError is raised if the
    configuration names no endpoint, or asks for what a remote reward cannot do.
    """

    def __init__(self, config_path: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        self._judge, self._policy = open_judge(Config.load(config_path))

    async def _replied(self, queries: Sequence[str], prompts: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
        rollouts = [self._judge.rollout(*rollout) for rollout in zip(queries, prompts, labels, strict=True)]
        return reply(list(await asyncio.gather(*map(self._judge.score, rollouts))))

    async def _closed(self) -> None:
        await self._policy.close()
