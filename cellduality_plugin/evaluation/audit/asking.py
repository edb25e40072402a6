"""A policy that is asked nothing twice, and an account of what each reward asked of it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
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
    prefilled
        Tokens that were read: prompts, and responses whose probability was asked for.
    decoded
        Tokens that were written.
    seconds
        Of the policy's time: while n calls are under way, each is charged a n-th of it.
    """

    requests: float = 0.0
    prefilled: float = 0.0
    decoded: float = 0.0
    seconds: float = 0.0

    def add(self, other: Cost) -> None:
        """Add what another account holds."""
        self.requests += other.requests
        self.prefilled += other.prefilled
        self.decoded += other.decoded
        self.seconds += other.seconds

    def share(self, of: int) -> Cost:
        """Return an ``of``-th of it."""
        return Cost(self.requests / of, self.prefilled / of, self.decoded / of, self.seconds / of)


@dataclass(frozen=True)
class _Call:
    """How a call ended, and what it cost."""

    result: Any
    error: PolicyError | None
    cost: Cost


class Remembering:
    """Asks a policy each question once, however many rewards put it; everyone is charged as if they had asked alone.

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
        self.prompt_tokens, self.response_tokens = prompt_tokens, response_tokens
        self._room = asyncio.Semaphore(at_once)
        self._calls: dict[Question, asyncio.Future[_Call]] = {}
        self._under_way, self._clock, self._shared = 0, 0.0, 0.0

    def account(self) -> Account:
        """Return a new account, which is a policy."""
        return Account(self)

    async def generate(self, prompt: str, draw: int | Trace, temperature: float | None = None) -> _Call:
        """Return draw number ``draw`` of the response to ``prompt``, or the trace that has a seed of its own."""
        seed = draw.seed if isinstance(draw, Trace) else None

        def cost(text: str) -> Cost:
            return Cost(1, self.prompt_tokens(prompt), self.response_tokens(text) + 1)

        def ask() -> Awaitable[str]:
            return self._policy.generate(prompt, seed=seed, temperature=temperature)

        return await self._once((prompt, draw), ask, cost)

    async def log_probs(self, prompt: str, response: str, given: str = "") -> _Call:
        """Return the log-probability of each token of ``response``, which follows ``given``."""

        def cost(found: list[float]) -> Cost:
            return Cost(1, self.prompt_tokens(prompt) + self.response_tokens(given + response), 1)

        question = (prompt, After(given, response) if given else response)
        return await self._once(question, lambda: self._policy.log_probs(prompt, response, given=given), cost)

    async def choice_log_probs(self, prompt: str, responses: tuple[str, ...]) -> _Call:
        """Return how likely each of ``responses`` is among them."""

        def cost(found: list[float]) -> Cost:
            return Cost(1, self.prompt_tokens(prompt), 1)

        return await self._once((prompt, responses), lambda: self._policy.choice_log_probs(prompt, responses), cost)

    async def _once(self, question: Question, ask: Callable[[], Awaitable[Any]], cost: Callable[[Any], Cost]) -> _Call:
        if question not in self._calls:
            self._calls[question] = asyncio.ensure_future(self._call(ask, cost))
        return await asyncio.shield(self._calls[question])

    async def _call(self, ask: Callable[[], Awaitable[Any]], cost: Callable[[Any], Cost]) -> _Call:
        async with self._room:
            begun = self._tick(+1)
            try:
                result, error = await asyncio.wait_for(ask(), self._timeout), None
            except asyncio.TimeoutError:
                result, error = None, PolicyError("timeout")
            except PolicyError as failure:
                result, error = None, failure
            finally:
                seconds = self._tick(-1) - begun
        spent = Cost(1) if error else cost(result)
        spent.seconds = seconds
        return _Call(result, error, spent)

    def _tick(self, more: int) -> float:
        """Return the seconds that a call which was under way from the beginning is charged up to now."""
        now = time.monotonic()
        if self._under_way:
            self._shared += (now - self._clock) / self._under_way
        self._clock = now
        self._under_way += more
        return self._shared


class Account:
    """A policy over :class:`Remembering` that keeps ``cost``; a prompt's n-th draw is the same in every account."""

    def __init__(self, memory: Remembering) -> None:
        self.cost = Cost()
        self._memory = memory
        self._draws: Counter[str] = Counter()

    async def generate(self, prompt: str, *, seed: int | None = None, temperature: float | None = None) -> str:
        """Return the next draw of the response to ``prompt``, or the one that has a seed of its own."""
        draw: int | Trace = self._draws[prompt] if seed is None else Trace(seed)
        self._draws[prompt] += seed is None
        return str(self._charged(await self._memory.generate(prompt, draw, temperature)))

    async def log_probs(self, prompt: str, response: str, *, given: str = "") -> list[float]:
        """Return the log-probability of each token of ``response``, which follows ``given``."""
        found: list[float] = self._charged(await self._memory.log_probs(prompt, response, given))
        return found

    async def choice_log_probs(self, prompt: str, responses: Sequence[str]) -> list[float]:
        """Return how likely each of ``responses`` is among them."""
        found: list[float] = self._charged(await self._memory.choice_log_probs(prompt, tuple(responses)))
        return found

    def _charged(self, call: _Call) -> Any:
        self.cost.add(call.cost)
        if call.error:
            raise PolicyError(call.error.cause)
        return call.result
