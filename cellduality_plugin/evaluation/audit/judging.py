"""What each answer about a cell is paid, mask by mask, by the very scorer of training."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from cellduality_plugin.config import Config
from cellduality_plugin.duals import Memo
from cellduality_plugin.evaluation.audit.answers import Case, Kind
from cellduality_plugin.evaluation.audit.asking import Account, Cost, Remembering
from cellduality_plugin.evaluation.audit.contenders import Contender
from cellduality_plugin.evaluation.audit.statistics import Rewards
from cellduality_plugin.examples import Example
from cellduality_plugin.scoring import Score, Scorer

_UNBOUNDED = 86_400.0


@dataclass(frozen=True)
class Judged:
    """The rewards of one cell's answers.

    Parameters
    ----------
    candidates, samples
        Answers x masks, in the order of the case and of the group.
    cost
        What the group of samples cost under all masks, asked as training asks it.
    failed
        Share of the samples' duals that gave no verdict.
    """

    case: Case
    candidates: Rewards
    samples: Rewards
    cost: Cost
    failed: float

    def of(self, *kinds: Kind) -> Rewards:
        """Return the rewards of the candidates of ``kinds``: answers x masks."""
        return self.candidates[[place for place, c in enumerate(self.case.candidates) if c.kind in kinds]]


def scorer_of(config: Config, task: str, contender: Contender) -> Scorer:
    """Return the scorer of a run in which ``task`` is paid as ``contender`` has it, and nothing else changes.

    Raises
    ------
    CellDualityError
        If there is no such reward, or it cannot judge the task.
    """
    settings = config.tasks[task].model_copy(update=asdict(contender))
    # How long one call may take is bounded where it is made: a queue of them is an audit's own doing.
    dual = config.dual.model_copy(update={"timeout_seconds": _UNBOUNDED})
    return Scorer(config.model_copy(update={"tasks": {task: settings}, "dual": dual}))


async def judge(scorer: Scorer, case: Case, samples: Sequence[str], memory: Remembering) -> Judged:
    """Return what ``scorer`` pays for the candidates of ``case`` and for the policy's own answers ``samples``."""
    found = await asyncio.gather(*(_judge_split(scorer, case, split, samples, memory) for split in case.splits))
    rewards = np.array([rewards for rewards, _, _ in found], dtype=float).T
    cost = Cost()
    for _, spent, _ in found:
        cost.add(spent)
    failed = float(np.mean([share for _, _, share in found]))
    return Judged(case, rewards[len(samples) :], rewards[: len(samples)], cost, failed)


async def _judge_split(
    scorer: Scorer, case: Case, split: Example, samples: Sequence[str], memory: Remembering
) -> tuple[list[float], Cost, float]:
    """Return the rewards of samples and candidates under one mask, what the samples cost, and how many failed."""
    group = scorer.group(split.to_label())
    group.memo = Memo()  # charged for all it asks, whatever other groups have asked

    async def score(text: str, policy: Account) -> Score:
        return await scorer.score(text, group, policy)

    async def member(text: str) -> Score:
        with group.member():
            await asyncio.sleep(0)  # so that all members have begun before the first of them ends, as in a run
            return await scorer.level(await score(text, account), group)

    account = memory.account()
    sampled = [(each.reward, each.logs["dual_failed"]) for each in await asyncio.gather(*map(member, samples))]
    cost = account.cost
    # Candidates are nobody's group: each is paid for itself.
    texts = [case.task.answer_response(candidate.value) for candidate in case.candidates]
    found = await asyncio.gather(*(score(text, memory.account()) for text in texts))
    known = [each.reward for each in found]
    failed = float(np.mean([share for _, share in sampled])) if sampled else 0.0
    return [*(reward for reward, _ in sampled), *known], cost, failed
