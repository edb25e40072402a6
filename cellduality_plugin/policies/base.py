"""What can be asked of a model, be it an engine, an endpoint, a checkpoint or records; and what was asked already."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeAlias


class PolicyError(Exception):
    """A call that gave no answer: data, not a crash. Its ``cause`` is a word for counters, such as ``"timeout"``."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class Policy(Protocol):
    """A language model that answers user prompts; every call raises a :class:`PolicyError` if it gives no answer."""

    async def generate(self, prompt: str, *, seed: int | None = None, temperature: float | None = None) -> str:
        """Return the response to ``prompt``; the model chooses a seed, and its settings the temperature, if None."""
        ...

    async def log_probs(self, prompt: str, response: str, *, given: str = "") -> list[float]:
        """Return the natural log-probability of each token of ``response`` after ``prompt`` (one prefill).

        ``given`` is the beginning of the model's turn: it is read and not scored, and ``response`` follows it.
        """
        ...

    async def choice_log_probs(self, prompt: str, responses: Sequence[str]) -> list[float]:
        """Return for each of ``responses`` the natural log-probability of its tokens where responses branch.

        That is how likely each is among them, up to a number that they share.
        """
        ...


@dataclass(frozen=True)
class Question:
    """What is asked of a model: for a response, or how likely one is, or how likely each of ``choices`` is among them.

    Draws without a seed differ by their number; the temperature says how one is drawn, and not which it is.
    """

    prompt: str
    response: str | None = None  # whose tokens are scored; None to have one written
    given: str = ""  # the beginning of the model's turn, which is read and not scored
    choices: tuple[str, ...] = ()
    draw: int = 0
    seed: int | None = None
    temperature: float | None = field(default=None, compare=False)

    @property
    def is_draw(self) -> bool:
        return self.response is None and not self.choices

    async def put_to(self, policy: Policy) -> Any:
        """Return the answer of ``policy``."""
        if self.choices:
            return await policy.choice_log_probs(self.prompt, self.choices)
        if self.response is not None:
            return await policy.log_probs(self.prompt, self.response, given=self.given)
        return await policy.generate(self.prompt, seed=self.seed, temperature=self.temperature)


class QuestionPolicy(ABC):
    """A policy over answers that are found by their question; the n-th draw of a prompt is draw n."""

    def __init__(self) -> None:
        self._draws: Counter[str] = Counter()

    @abstractmethod
    async def answer(self, question: Question) -> Any:
        """Return the text or the numbers that answer ``question``, or raise a PolicyError."""

    async def generate(self, prompt: str, *, seed: int | None = None, temperature: float | None = None) -> str:
        """Return the next draw of the response to ``prompt``, or the one that has a seed of its own."""
        draw = self._draws[prompt] if seed is None else 0
        self._draws[prompt] += seed is None
        return str(await self.answer(Question(prompt, draw=draw, seed=seed, temperature=temperature)))

    async def log_probs(self, prompt: str, response: str, *, given: str = "") -> list[float]:
        return list(await self.answer(Question(prompt, response, given)))

    async def choice_log_probs(self, prompt: str, responses: Sequence[str]) -> list[float]:
        return list(await self.answer(Question(prompt, choices=tuple(responses))))


Asked: TypeAlias = dict[Question, "asyncio.Future[Any]"]
"""What was asked already, with the answers that came or will come."""


class Memo:
    """What the groups in flight at one time have asked: what one of them asked no other asks again.

    A group in flight is inside (``with memo``). When the last one leaves, all is forgotten, so that no answer outlives
    the weights that gave it: an engine's weights change while nothing is in flight. A call that failed is forgotten at
    once, and the oldest where there are more than ``limit``. One event loop at a time.
    """

    def __init__(self, limit: int = 16_384) -> None:
        self._limit, self._inside = limit, 0
        self._calls: Asked = {}

    def __enter__(self) -> None:
        self._inside += 1

    def __exit__(self, *error: object) -> None:
        self._inside -= 1
        if not self._inside:
            self._calls.clear()

    def once(self, question: Question, ask: Callable[[], Awaitable[Any]]) -> tuple[asyncio.Future[Any], bool]:
        """Return the call that asks ``question``, and whether it was made now, by ``ask``; not to be cancelled."""
        if question in self._calls:
            return self._calls[question], False
        call = asyncio.ensure_future(ask())
        call.add_done_callback(partial(self._done, question))
        if self._inside:
            self._calls[question] = call
        if len(self._calls) > self._limit:
            del self._calls[next(iter(self._calls))]
        return call, True

    def _done(self, question: Question, call: asyncio.Future[Any]) -> None:
        # The exception is looked at, too, because asyncio warns of one that nothing waits for any more.
        if (call.cancelled() or call.exception()) and self._calls.get(question) is call:
            del self._calls[question]
