"""What each answer about a cell is paid, mask by mask, by the very scorer of training."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from cellduality_plugin.config import Config
from cellduality_plugin.evaluation.audit.answers import Case, Kind
from cellduality_plugin.evaluation.audit.asking import Account, Cost, Remembering
from cellduality_plugin.evaluation.audit.contenders import Contender
from cellduality_plugin.evaluation.audit.statistics import Rewards
from cellduality_plugin.examples import Example
from cellduality_plugin.policies.base import Policy, PolicyError
from cellduality_plugin.policies.memo import Memo
from cellduality_plugin.scoring import Scorer

_UNBOUNDED = 86_400.0


@dataclass(frozen=True)
class Judged:
    """The rewards of one cell's candidates and samples: answers x masks, in the order of the case and of the group.

    ``cost`` is what the samples cost under all masks, asked as training asks; ``failed`` the share of their duals that
    gave no verdict.
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
    texts = [case.task.answer_response(candidate.value) for candidate in case.candidates]

    async def under(split: Example) -> tuple[list[float], list[float], Cost, float]:
        group = scorer.group(split.to_label())
        group.memo = Memo()  # charged for all it asks, whatever other groups have asked
        account = Account(memory)
        sampled = await scorer.score_all(samples, group, account)
        # Candidates are nobody's group: each is paid for itself.
        known = await asyncio.gather(*(scorer.score(text, group, Account(memory)) for text in texts))
        failed = [each.logs["dual_failed"] for each in sampled] or [0.0]
        return [s.reward for s in sampled], [s.reward for s in known], account.cost, float(np.mean(failed))

    found = await asyncio.gather(*map(under, case.splits))
    sampled, known, costs, failed = zip(*found, strict=True)
    of_candidates, of_samples = (np.array(each, dtype=float).T for each in (known, sampled))
    return Judged(case, of_candidates, of_samples, Cost.sum(costs), float(np.mean(failed)))


async def response(policy: Policy, prompt: str) -> str:
    """Return the response to ``prompt``, or an empty one, which nothing can be read in, where there is none."""
    try:
        return await policy.generate(prompt)
    except PolicyError:
        return ""
