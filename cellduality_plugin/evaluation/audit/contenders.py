"""What is put to the test for a task: a reward, how much of a cell its dual rebuilds, and how often it reasons."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example
from cellduality_plugin.reward_names import shortened
from cellduality_plugin.rewards import REWARDS, get_reward
from cellduality_plugin.tasks import DualTask

CONFIGURED = "configured"
"""Stands for the reward that the configuration gives a task."""

RewardName: TypeAlias = "str | Mapping[str, float]"
"""A product of kinds, or {such a product: weight}."""


@dataclass(frozen=True)
class Contender:
    """One way to pay a task, in the words of :class:`cellduality_plugin.config.TaskSettings`.

    ``hidden`` is the share of a cell's genes that the dual rebuilds, None for the split of the row.
    """

    reward: RewardName
    hidden: float | None = None
    traces: int = 0

    @property
    def title(self) -> str:
        """The name in tables.

        Examples
        --------
        >>> Contender("posterior", 1.0, 4).title, Contender({"duality": 2.0}, 0.25).title
        ('posterior, all hidden, 4 traces', '2*duality, 25 % hidden')
        """
        parts = [shortened(self.reward, ":")]
        if self.hidden is not None:
            parts.append(f"{'all' if self.hidden == 1 else f'{100 * self.hidden:g} %'} hidden")
        if self.traces:
            parts.append(f"{self.traces} trace{'s' if self.traces > 1 else ''}")
        return ", ".join(parts)


def contenders_for(
    task: DualTask,
    row: Example,
    config: Config,
    rewards: Sequence[RewardName] = (),
    hidden: Sequence[float] = (),
    traces: Sequence[int] = (),
) -> list[Contender]:
    """Return every combination of rewards, hidden shares and traces that makes sense for ``task``, each once.

    No ``rewards`` are :data:`CONFIGURED` and the ``audited`` kinds, the ground truth last; those that cannot judge the
    task are left out, and an unknown name is a CellDualityError. No shares or traces are those of the configuration.
    Shares are for tasks that hide genes, as any ``row`` shows, traces for rewards that read how likely the dual's
    response is.
    """
    settings = config.tasks[task.name]
    hides = any(task.hide(row, share) != row for share in (0.5, 1.0))
    found: list[Contender] = []
    unasked = sorted(
        (kind for kind, each in REWARDS.items() if each.audited), key=lambda kind: REWARDS[kind].needs_gold
    )
    for asked in rewards or (CONFIGURED, *unasked):
        name = settings.reward if asked == CONFIGURED else asked
        reward = get_reward(name, config.folder)
        with contextlib.suppress(CellDualityError):
            check_reward(name, task, config)
            shares: Sequence[float | None] = (hidden if hides and reward.asks_dual else ()) or [settings.hidden]
            counts = (traces if reward.asks_dual and reward.asks_log_probs else ()) or [settings.traces]
            fit = (Contender(name, share, count) for share, count in product(shares, counts))
            found += [contender for contender in fit if contender not in found]
    return found


def check_reward(name: RewardName, task: DualTask, config: Config) -> None:
    """Raise a CellDualityError that says why ``task`` cannot be judged so with what ``config`` has."""
    config.with_tasks({task.name: {"reward": name}}).load_rewards({task.name: task})
