"""What is put to the test for a task: a reward, what its dual rebuilds and how often it reasons; and what that pays."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.audit.answers import Case, Kind, NearestCells, RewardName, truths
from cellduality_plugin.evaluation.audit.engine import Account, Players, Remembering
from cellduality_plugin.examples import Example
from cellduality_plugin.policies.base import Policy, PolicyError
from cellduality_plugin.policies.memo import Memo
from cellduality_plugin.reward_names import shortened
from cellduality_plugin.rewards import REWARDS, get_reward
from cellduality_plugin.scoring import Scorer
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.vocabulary import Vocabulary

CONFIGURED = "configured"
"""Stands for the reward that the configuration gives a task."""

Floats: TypeAlias = NDArray[np.float64]
"""Rewards of one cell are answers x masks, or answers x blocks of masks."""


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
        """The name in tables, such as ``posterior, 25 % hidden, 4 traces``."""
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
    settings, found = config.tasks[task.name], list[Contender]()
    hides = any(task.hide(row, share) != row for share in (0.5, 1.0))
    audited = (kind for kind, each in REWARDS.items() if each.audited)
    for asked in rewards or (CONFIGURED, *sorted(audited, key=lambda kind: REWARDS[kind].needs_gold)):
        name = settings.reward if asked == CONFIGURED else asked
        reward = get_reward(name, config.folder)
        with contextlib.suppress(CellDualityError):
            check_reward(name, task, config)
            shares: Sequence[float | None] = (hidden if hides and reward.asks_dual else ()) or [settings.hidden]
            counts = (traces if reward.asks_dual and reward.asks_log_probs else ()) or [settings.traces]
            found += [Contender(name, share, count) for share, count in product(shares, counts)]
    return [each for place, each in enumerate(found) if each not in found[:place]]


def check_reward(name: RewardName, task: DualTask, config: Config) -> None:
    """Raise a CellDualityError that says why ``task`` cannot be judged so with what ``config`` has."""
    config.with_tasks({task.name: {"reward": name}}).load_rewards({task.name: task})


def scorer_of(config: Config, task: str, contender: Contender) -> Scorer:
    """Return the scorer of a run in which ``task`` is paid as ``contender`` has it, and nothing else changes.

    A CellDualityError if there is no such reward, or it cannot judge the task.
    """
    settings = config.tasks[task].model_copy(update=asdict(contender))
    # A queue of calls is an audit's own doing: each of them is bounded where it is made.
    dual = config.dual.model_copy(update={"timeout_seconds": 86_400.0})
    return Scorer(config.model_copy(update={"tasks": {task: settings}, "dual": dual}))


@dataclass(frozen=True)
class Judged:
    """The rewards of one cell's candidates and samples: answers x masks, in the order of the case and of the group."""

    case: Case
    candidates: Floats
    samples: Floats
    costs: Floats  # by COSTS, of the samples under all masks, asked as training asks
    failed: float  # the share of their duals that gave no verdict

    def of(self, *kinds: Kind) -> Floats:
        """Return the rewards of the candidates of ``kinds``: answers x masks."""
        return self.candidates[[place for place, (kind, _) in enumerate(self.case.candidates) if kind in kinds]]


async def judge(scorer: Scorer, case: Case, memory: Remembering) -> Judged:
    """Return what ``scorer`` pays for the candidates of ``case`` and for the policy's own answers."""
    texts = [case.task.answer_response(value) for _, value in case.candidates]

    async def under(split: Example) -> tuple[list[float], list[float], Floats, float]:
        group = scorer.group(split.to_label())
        group.memo = Memo()  # charged for all it asks, whatever other groups have asked
        account = Account(memory)
        sampled = await scorer.score_all(case.samples, group, account)
        # Candidates are no group: each is scored on its own.
        known = await asyncio.gather(*(scorer.score(text, group, Account(memory)) for text in texts))
        failed = [each.logs["dual_failed"] for each in sampled] or [0.0]
        return [s.reward for s in sampled], [s.reward for s in known], account.costs, float(np.mean(failed))

    found = await asyncio.gather(*map(under, case.splits))
    sampled, known, costs, failed = zip(*found, strict=True)
    of_candidates, of_samples = (np.array(each, dtype=float).T for each in (known, sampled))
    return Judged(case, of_candidates, of_samples, np.sum(costs, axis=0), float(np.mean(failed)))


async def response(policy: Policy, prompt: str, seed: int | None = None) -> str:
    """Return the response to ``prompt``, or an empty one, in which nothing can be read, where there is none."""
    try:
        return await policy.generate(prompt, seed=seed)
    except PolicyError:
        return ""


async def ask_policy(
    case: Case, real: NearestCells | None, players: Players, samples: int, vocabulary: Vocabulary
) -> Case:
    """Return ``case`` with the policy's own answers to its question; the likeliest one of a label alone."""
    prompt = case.task.primal_prompt(case.example.inputs, vocabulary)
    first = int(case.names_a_label)
    asked = [*[players.greedy] * first, *[players.sampler] * samples]
    texts = await asyncio.gather(*(response(policy, prompt) for policy in asked))
    values = [case.task.parse_answer(text, vocabulary).value for text in texts]
    greedy, drawn = values[0] if first else None, values[first:]
    return replace(case, greedy=greedy, samples=texts[first:], values=drawn, truths=truths(case, drawn, real))
