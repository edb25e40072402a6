"""What can be asked of a model, be it an engine, an endpoint, a checkpoint in this process or records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
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
class Trace:
    """A draw of a reasoning trace, by its seed; the temperature says how it is drawn, not which draw it is."""

    seed: int
    temperature: float | None = field(default=None, compare=False)


@dataclass(frozen=True)
class After:
    """A response whose beginning is given and only the rest of it scored."""

    given: str
    response: str


What: TypeAlias = "str | int | tuple[str, ...] | Trace | After"
Question: TypeAlias = tuple[str, What]
"""A prompt, and a response, the number of a draw, the responses to choose among, a trace, or a response after one."""


def put(policy: Policy, question: Question) -> Awaitable[Any]:
    """Return the answer of ``policy`` to a question, to be awaited."""
    prompt, what = question
    if isinstance(what, int):
        return policy.generate(prompt)
    if isinstance(what, Trace):
        return policy.generate(prompt, seed=what.seed, temperature=what.temperature)
    if isinstance(what, After):
        return policy.log_probs(prompt, what.response, given=what.given)
    return policy.log_probs(prompt, what) if isinstance(what, str) else policy.choice_log_probs(prompt, what)


class QuestionPolicy(ABC):
    """A policy over answers that are found by their question; the n-th draw of a prompt is draw n."""

    def __init__(self) -> None:
        self._draws: Counter[str] = Counter()

    @abstractmethod
    async def answer(self, question: Question) -> Any:
        """Return the text or the numbers that answer ``question``, or raise a PolicyError."""

    async def generate(self, prompt: str, *, seed: int | None = None, temperature: float | None = None) -> str:
        """Return the next draw of the response to ``prompt``, or the one that has a seed of its own."""
        draw: What = self._draws[prompt] if seed is None else Trace(seed, temperature)
        self._draws[prompt] += seed is None
        return str(await self.answer((prompt, draw)))

    async def log_probs(self, prompt: str, response: str, *, given: str = "") -> list[float]:
        """Return the log-probability of each token of ``response``, which follows ``given``."""
        return list(await self.answer((prompt, After(given, response) if given else response)))

    async def choice_log_probs(self, prompt: str, responses: Sequence[str]) -> list[float]:
        """Return how likely each of ``responses`` is among them."""
        return list(await self.answer((prompt, tuple(responses))))
