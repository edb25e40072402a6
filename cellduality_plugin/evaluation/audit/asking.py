"""A policy that is asked nothing twice, and an account of what each reward asked of it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import astuple, dataclass
from typing import Any, TypeAlias

from cellduality_plugin.policies.base import After, Policy, PolicyError, Question, Trace

CountTokens: TypeAlias = Callable[[str], int]


@dataclass
class Cost:
    """What was asked of a policy.

    Parameters
    ----------
    requests
        Calls.
    prefilled, decoded
        Tokens that were read (prompts, and responses whose probability was asked for), and that were written.
    seconds
        Of the policy's time: while n calls are under way, each is charged a n-th of it.
    """

    requests: float = 0.0
    prefilled: float = 0.0
    decoded: float = 0.0
    seconds: float = 0.0

    @classmethod
    def sum(cls, costs: Sequence[Cost], of: int = 1) -> Cost:
        """Return an ``of``-th of the sum of ``costs``."""
        return cls(*(sum(column) / of for column in zip(*map(astuple, costs), strict=True)))


@dataclass(frozen=True)
class _Call:
    """How a call ended, and what it cost."""

    result: Any
    error: PolicyError | None
    cost: Cost


class Remembering:
    """Asks a policy each question once, however many accounts put it.

    Parameters
    ----------
    policy
        Who is asked.
    prompt_tokens, response_tokens
        How many tokens a user prompt (framed by the chat template) and a response have.
    at_once
        Calls under way at the most.
    timeout
        Seconds after which a call counts as failed. Waiting for others to finish does not count.
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
        self._calls: dict[Question, asyncio.Future[_Call]] = {}
        self._under_way, self._clock, self._shared = 0, 0.0, 0.0

    async def once(self, question: Question, ask: Callable[[Policy], Awaitable[Any]]) -> _Call:
        """Return the call that asks ``question``: ``ask`` is made if it is the first."""
        if question not in self._calls:
            self._calls[question] = asyncio.ensure_future(self._call(question, ask))
        return await asyncio.shield(self._calls[question])

    async def _call(self, question: Question, ask: Callable[[Policy], Awaitable[Any]]) -> _Call:
        async with self._room:
            result, error, begun = None, None, self._tick(+1)
            try:
                result = await asyncio.wait_for(ask(self._policy), self._timeout)
            except asyncio.TimeoutError:
                error = PolicyError("timeout")
            except PolicyError as failure:
                error = failure
            finally:
                seconds = self._tick(-1) - begun
        tokens = (0, 0) if error else self._tokens(question, result)
        return _Call(result, error, Cost(1, *tokens, seconds))

    def _tokens(self, question: Question, result: Any) -> tuple[int, int]:
        """Return how many were read and written."""
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


class Account:
    """A policy over :class:`Remembering`, charged in ``cost`` as if it had asked alone.

    A prompt's n-th draw is the same in every account.
    """

    def __init__(self, memory: Remembering) -> None:
        self.cost = Cost()
        self._memory = memory
        self._draws: Counter[str] = Counter()

    async def generate(self, prompt: str, *, seed: int | None = None, temperature: float | None = None) -> str:
        """Return the next draw of the response to ``prompt``, or the one that has a seed of its own."""
        draw: int | Trace = self._draws[prompt] if seed is None else Trace(seed)
        self._draws[prompt] += seed is None
        how: dict[str, Any] = {"seed": seed, "temperature": temperature}
        return str(await self._ask((prompt, draw), lambda policy: policy.generate(prompt, **how)))

    async def log_probs(self, prompt: str, response: str, *, given: str = "") -> list[float]:
        """Return the log-probability of each token of ``response``, which follows ``given``."""
        what = After(given, response) if given else response
        return list(await self._ask((prompt, what), lambda policy: policy.log_probs(prompt, response, given=given)))

    async def choice_log_probs(self, prompt: str, responses: Sequence[str]) -> list[float]:
        """Return how likely each of ``responses`` is among them."""
        what = tuple(responses)
        return list(await self._ask((prompt, what), lambda policy: policy.choice_log_probs(prompt, what)))

    async def _ask(self, question: Question, ask: Callable[[Policy], Awaitable[Any]]) -> Any:
        call = await self._memory.once(question, ask)
        self.cost = Cost.sum([self.cost, call.cost])
        if call.error:
            raise PolicyError(call.error.cause)
        return call.result
