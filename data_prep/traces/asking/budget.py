"""What sampling may cost: no request starts that could take the sum over the budget."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from pydantic import Field, model_validator

from cellduality_plugin.settings import Settings
from data_prep.traces.candidates import Tokens


class SampleSettings(Settings):
    """How a teacher is asked.

    Parameters
    ----------
    candidates
        How many answers a question gets.
    concurrency
        How many requests are in flight at a time.
    budget_tokens, budget_usd
        What this teacher's candidates in the file may cost in all, those of earlier runs included; None: no bound.
    price_in, price_out
        US$ for a million tokens of prompts and of completions.
    patience
        The run ends after so many questions in a row that were given up, with no answer among them.
    """

    candidates: int = Field(default=4, ge=1)
    concurrency: int = Field(default=64, ge=1, le=1000)
    budget_tokens: int | None = Field(default=None, ge=1)
    budget_usd: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    price_in: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    price_out: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    patience: int = Field(default=200, ge=1)

    @model_validator(mode="after")
    def _priced(self) -> SampleSettings:
        if self.budget_usd is not None and not (self.price_in or self.price_out):
            raise ValueError("a budget in US$ needs price_in and price_out")
        return self

    def cost(self, tokens: Tokens) -> float:
        """Return the price of tokens in US$."""
        return tokens.cost(self.price_in, self.price_out)


@dataclass
class Budget:
    """What may be spent, was spent, and could yet be spent by what is in flight.

    An answer is reckoned at the most it can cost until it is there, so that the sum never passes the budget; towards
    its end fewer requests are in flight at a time.
    """

    settings: SampleSettings
    spent: Tokens = field(default_factory=Tokens)
    _reserved: Tokens = field(default_factory=Tokens)
    _in_flight: int = 0
    _waiting: list[asyncio.Future[None]] = field(default_factory=list)

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

    def _fits(self, total: Tokens) -> bool:
        tokens, usd = self.settings.budget_tokens, self.settings.budget_usd
        return (tokens is None or total.total <= tokens) and (usd is None or self.settings.cost(total) <= usd)


def figures(asked: int, seconds: float, failed: int, budget: Budget) -> str:
    """Return the running figures in a line; the rate is that of this run alone.

    Examples
    --------
    >>> settings = SampleSettings(budget_usd=5, price_in=2.5, price_out=10)
    >>> figures(50, 10, 2, Budget(settings, Tokens(40_000, 30_000)))
    '5.0/s, 70,000 tokens, $0.40 of $5, 2 failed'
    >>> figures(50, 10, 0, Budget(SampleSettings(budget_tokens=100_000), Tokens(40_000, 30_000)))
    '5.0/s, 70,000 of 100,000 tokens'
    """
    settings, spent = budget.settings, budget.spent
    bound = "" if settings.budget_tokens is None else f" of {settings.budget_tokens:,}"
    parts = [f"{asked / seconds if seconds > 0 else 0.0:.1f}/s"]
    if spent.total or bound:
        parts.append(f"{spent.total:,}{bound} tokens")
    if settings.price_in or settings.price_out:
        most = "" if settings.budget_usd is None else f" of ${settings.budget_usd:g}"
        parts.append(f"${settings.cost(spent):.2f}{most}")
    if failed:
        parts.append(f"{failed} failed")
    return ", ".join(parts)
