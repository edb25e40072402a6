"""OpenRLHF's ``reward_func``, judged by a policy behind an endpoint: neither a server nor an agent of ours."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

from cellduality_plugin.config import Config
from cellduality_plugin.openrlhf_hooks.remote.protocol import reply
from cellduality_plugin.openrlhf_hooks.remote.serving import open_judge
from cellduality_plugin.openrlhf_hooks.remote.threads import FromThreads


class RewardFunction(FromThreads):
    """Judges rollouts here, and asks the endpoint of the configuration to play the dual.

    The configuration file is by default the one that ``CELLDUALITY_CONFIG`` names.

    Raises
    ------
    CellDualityError
        If the configuration names no endpoint, or asks for what a remote reward cannot do.
    """

    def __init__(self, config_path: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        self._judge, self._policy = open_judge(Config.load(config_path))

    async def _replied(self, queries: Sequence[str], prompts: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
        rollouts = [self._judge.rollout(*rollout) for rollout in zip(queries, prompts, labels, strict=True)]
        return reply(list(await asyncio.gather(*map(self._judge.score, rollouts))))

    async def _closed(self) -> None:
        await self._policy.close()
