"""OpenRLHF's ``reward_func``, judged by reward servers, of which any may be away for a while."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.openrlhf_hooks.remote.access import TOKEN_VARIABLE
from cellduality_plugin.openrlhf_hooks.remote.judge import OPENRLHF_WAITS
from cellduality_plugin.openrlhf_hooks.remote.threads import FromThreads
from cellduality_plugin.policies.addresses import Addresses
from cellduality_plugin.policies.base import PolicyError
from cellduality_plugin.policies.settings import EndpointSettings

PATIENCE = 1800.0
"""Seconds for which a rollout waits for a server to come back. A step that waits is lost time, a run that ends more."""


class RewardClient(FromThreads):
    """Asks the server with the fewest rollouts in hand, another if that fails, and waits if there is none.

    OpenRLHF's own client takes the next server in turn, stays with it, and gives up after five attempts, a second
    apart. A rollout that was under way at a server that died is judged again: its reward is the same.

    Parameters
    ----------
    urls
        Of servers that ``cellduality serve-reward`` started with one configuration. Their token is that of
        ``CELLDUALITY_TOKEN``.
    patience
        Seconds until a rollout that no server judged is given up.

    Raises
    ------
    CellDualityError
        If an address is none, or the token is not set.
    """

    def __init__(self, urls: Sequence[str], *, patience: float = PATIENCE) -> None:
        super().__init__()
        self._urls, self._patience = tuple(urls), patience
        self._servers = self._opened()

    async def _replied(self, queries: Sequence[str], prompts: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
        body = {"query": list(queries), "prompts": list(prompts), "labels": list(labels)}
        try:
            read = partial(read_reply, rollouts=len(queries))
            return await asyncio.wait_for(self._servers.post("/", body, read), self._patience)
        except asyncio.TimeoutError:
            what, mend = f"none answered within {self._patience:g} s", "start one again, then the run with RESUME=1"
        except PolicyError as error:
            what = f"a server refused a rollout: {error.cause}"
            mend = (
                f"set {TOKEN_VARIABLE} to the servers' token" if error.cause == "http_401" else "see the server's log"
            )
        raise CellDualityError(what, where=", ".join(self._urls), mend=mend)

    async def _closed(self) -> None:
        servers, self._servers = self._servers, self._opened()
        await servers.close()

    def _opened(self) -> Addresses:
        settings = EndpointSettings(
            urls=self._urls,
            model="reward",
            key_variable=TOKEN_VARIABLE,
            concurrency=1024,  # no bound: OpenRLHF has one of its own, its threads
            retries=1_000_000,  # until patience ends
            timeout_seconds=OPENRLHF_WAITS,
        )
        return Addresses(settings)


def read_reply(body: bytes, rollouts: int) -> dict[str, Any]:
    """Return what a reward server answered, if it is what OpenRLHF can work with.

    Parameters
    ----------
    body
        The body of its reply.
    rollouts
        How many it was asked about.

    Raises
    ------
    PolicyError
        If it is anything else, None and NaN among it: ``"malformed"``.

    Examples
    --------
    >>> read_reply(b'{"rewards": 0.5, "scores": 0.5, "extra_logs": {"dual_reward": 0.5}}', 1)
    {'rewards': 0.5, 'scores': 0.5, 'extra_logs': {'dual_reward': 0.5}}
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):  # not JSON, or not even text
        raise PolicyError("malformed") from None
    if not isinstance(content, dict):
        raise PolicyError("malformed")
    reply = {name: content.get(name) for name in ("rewards", "scores", "extra_logs")}
    logs = reply["extra_logs"]
    if not isinstance(logs, dict):
        raise PolicyError("malformed")
    for value in (reply["rewards"], reply["scores"], *logs.values()):
        values = [value] if rollouts == 1 else value
        if not isinstance(values, list) or len(values) != rollouts or not all(map(_number, values)):
            raise PolicyError("malformed")
    return reply


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
