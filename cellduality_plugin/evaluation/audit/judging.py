"""What each answer about a cell is paid, mask by mask, by the scorer of training, and what that asks of the dual."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np

from cellduality_plugin.config import Config
from cellduality_plugin.evaluation.audit.answers import Case, Kind
from cellduality_plugin.evaluation.audit.contenders import Contender
from cellduality_plugin.evaluation.audit.statistics import Floats
from cellduality_plugin.examples import Example
from cellduality_plugin.policies.base import After, Policy, PolicyError, Question, QuestionPolicy, put
from cellduality_plugin.policies.memo import Memo
from cellduality_plugin.scoring import Scorer

CountTokens: TypeAlias = Callable[[str], int]

COSTS = ("requests", "prefilled", "decoded", "seconds")
"""Calls; tokens read (prompts, and responses whose probability was asked for); tokens written; seconds of the policy's
time, of which each of n calls under way is charged an n-th."""


class Remembering:
    """Asks a policy each question once, however many accounts put it: ``at_once`` calls at a time.

    A call fails after ``timeout`` seconds; waiting for others to finish does not count. Tokens are those of a user
    prompt, framed by the chat template, and of a response.
    """

    def __init__(
        self,
        policy: Policy,
        prompt_tokens: CountTokens,
        response_tokens: CountTokens,
        *,
        at_once: int = 64,
        timeout: float | None = None,
    ) -> None:
        self._policy, self._timeout = policy, timeout
        self._prompt_tokens, self._response_tokens = prompt_tokens, response_tokens
        self._room = asyncio.Semaphore(at_once)
        self._calls: dict[Question, asyncio.Future[tuple[Any, Floats]]] = {}
        self._under_way, self._clock, self._shared = 0, 0.0, 0.0

    async def once(self, question: Question) -> tuple[Any, Floats]:
        """Return the result of ``question``, which may be a PolicyError, and its costs."""
        if question not in self._calls:
            self._calls[question] = asyncio.ensure_future(self._call(question))
        return await asyncio.shield(self._calls[question])

    async def _call(self, question: Question) -> tuple[Any, Floats]:
        result: Any
        async with self._room:
            begun = self._tick(+1)
            try:
                result = await asyncio.wait_for(put(self._policy, question), self._timeout)
            except asyncio.TimeoutError:
                result = PolicyError("timeout")
            except PolicyError as failure:
                result = failure
            finally:
                seconds = self._tick(-1) - begun
        return result, np.array([1.0, *self._tokens(question, result), seconds])

    def _tokens(self, question: Question, result: Any) -> tuple[int, int]:
        """Return how many were read and written."""
        if isinstance(result, PolicyError):
            return 0, 0
        prompt, what = question
        scored = what.given + what.response if isinstance(what, After) else what if isinstance(what, str) else ""
        written = self._response_tokens(result) + 1 if isinstance(result, str) else 1
        return self._prompt_tokens(prompt) + (self._response_tokens(scored) if scored else 0), written

    def _tick(self, more: int) -> float:
        """Return the seconds that a call which was under way from the beginning is charged up to now."""
        now = time.monotonic()
        if self._under_way:
            self._shared += (now - self._clock) / self._under_way
        self._clock = now
        self._under_way += more
        return self._shared


class Account(QuestionPolicy):
    """A policy over :class:`Remembering`, charged (``costs``, by :data:`COSTS`) as if it had asked alone.

    A prompt's n-th draw is the same in every account.
    """

    def __init__(self, memory: Remembering) -> None:
        super().__init__()
        self.costs = np.zeros(len(COSTS))
        self._memory = memory

    async def answer(self, question: Question) -> Any:
        """Return the answer that is remembered, or asked for now."""
        result, costs = await self._memory.once(question)
        self.costs = self.costs + costs
        if isinstance(result, PolicyError):
            raise PolicyError(result.cause)
        return result


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


def scorer_of(config: Config, task: str, contender: Contender) -> Scorer:
    """Return the scorer of a run in which ``task`` is paid as ``contender`` has it, and nothing else changes.

    A CellDualityError if there is no such reward, or it cannot judge the task.
    """
    settings = config.tasks[task].model_copy(update=asdict(contender))
    # A queue of calls is an audit's own doing: each of them is bounded where it is made.
    dual = config.dual.model_copy(update={"timeout_seconds": 86_400.0})
    return Scorer(config.model_copy(update={"tasks": {task: settings}, "dual": dual}))


async def judge(scorer: Scorer, case: Case, samples: Sequence[str], memory: Remembering) -> Judged:
    """Return what ``scorer`` pays for the candidates of ``case`` and for the policy's own answers ``samples``."""
    texts = [case.task.answer_response(value) for _, value in case.candidates]

    async def under(split: Example) -> tuple[list[float], list[float], Floats, float]:
        group = scorer.group(split.to_label())
        group.memo = Memo()  # charged for all it asks, whatever other groups have asked
        account = Account(memory)
        sampled = await scorer.score_all(samples, group, account)
        # Candidates are no group: each is scored on its own.
        known = await asyncio.gather(*(scorer.score(text, group, Account(memory)) for text in texts))
        failed = [each.logs["dual_failed"] for each in sampled] or [0.0]
        return [s.reward for s in sampled], [s.reward for s in known], account.costs, float(np.mean(failed))

    found = await asyncio.gather(*map(under, case.splits))
    sampled, known, costs, failed = zip(*found, strict=True)
    of_candidates, of_samples = (np.array(each, dtype=float).T for each in (known, sampled))
    return Judged(case, of_candidates, of_samples, np.sum(costs, axis=0), float(np.mean(failed)))


async def response(policy: Policy, prompt: str) -> str:
    """Return the response to ``prompt``, or an empty one, in which nothing can be read, where there is none."""
    try:
        return await policy.generate(prompt)
    except PolicyError:
        return ""
