"""What sampling may cost: no request starts that could take the sum over the budget."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from data_prep.traces.candidates import Teacher
from data_prep.traces.questions import Question


@dataclass(frozen=True)
class Tokens:
    """Tokens of prompts and of completions; they add up.

    Examples
    --------
    >>> Tokens(1000, 200) + Tokens(500, 0), Tokens(1_000_000, 100_000).cost(2.5, 10)
    (Tokens(prompt=1500, completion=200), 3.5)
    """

    prompt: int = 0
    completion: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.prompt + other.prompt, self.completion + other.completion)

    def __sub__(self, other: Tokens) -> Tokens:
        return Tokens(self.prompt - other.prompt, self.completion - other.completion)

    @property
    def total(self) -> int:
        return self.prompt + self.completion

    def cost(self, price_in: float, price_out: float) -> float:
        """Return the price in US$, given the prices of a million prompt and completion tokens."""
        return (self.prompt * price_in + self.completion * price_out) / 1e6


@runtime_checkable
class PaidTeacher(Teacher, Protocol):
    """A teacher that costs something and is reached over a network."""

    retried: Counter[str]
    """How often it was asked again, by the fault that made it necessary."""

    def most(self, question: Question) -> Tokens:
        """Return the most tokens that one answer can take."""
        ...

    def limit(self, in_flight: int) -> None:
        """Have at most so many requests in flight, however many answers are waited for."""
        ...

    async def close(self) -> None:
        """Let go of its connections; the next question opens them again."""
        ...


@dataclass
class Budget:
    """What may be spent, was spent, and could yet be spent by what is in flight.

    An answer is reckoned at the most it can cost until it is there, so that the sum never passes the budget; towards
    its end fewer requests are in flight at a time.

    Parameters
    ----------
    tokens, usd
        What may be spent in all; None: no such bound.
    price_in, price_out
        US$ for a million tokens of prompts and of completions.
    spent
        What was spent before.
    """

    tokens: int | None = None
    usd: float | None = None
    price_in: float = 0.0
    price_out: float = 0.0
    spent: Tokens = Tokens()
    _reserved: Tokens = Tokens()
    _in_flight: int = 0
    _waiting: list[asyncio.Future[None]] = field(default_factory=list)

    @property
    def cost(self) -> float:
        """What was spent, in US$."""
        return self.spent.cost(self.price_in, self.price_out)

    async def reserve(self, most: Tokens) -> bool:
        """Return True once an answer that costs ``most`` fits, or False if it does not though nothing is in flight."""
        while not self._fits(self.spent + self._reserved + most):
            if not self._in_flight:
                return False
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
        self._reserved += most
        self._in_flight += 1
        return True

    def settle(self, most: Tokens, used: Tokens) -> None:
        """Replace what was reserved by what was used, and let those who wait look again."""
        self._reserved -= most
        self._in_flight -= 1
        self.spent += used
        for turn in self._waiting:
            if not turn.done():
                turn.set_result(None)
        self._waiting.clear()

    def _fits(self, sum_: Tokens) -> bool:
        if self.tokens is not None and sum_.total > self.tokens:
            return False
        return self.usd is None or sum_.cost(self.price_in, self.price_out) <= self.usd
