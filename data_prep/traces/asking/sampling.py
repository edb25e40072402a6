"""Asking a teacher for candidates: many at a time, each once, and never beyond the budget."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterable, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator
from tqdm import tqdm

from cellduality_plugin.policies.base import PolicyError
from cellduality_plugin.settings import Settings
from data_prep.traces.candidates import NO_TOKENS, Candidate, CandidateLog, Teacher, Tokens, prompt_hash
from data_prep.traces.questions import Question

GRACE = 30.0  # seconds that requests in flight, which are paid for, are waited for when one shows that the run must end
TICK = 0.5  # seconds between updates of the counter, and after which the disk keeps what was written


class SampleSettings(Settings):
    """How a teacher is asked."""

    candidates: int = Field(default=4, ge=1)  # answers to a question
    concurrency: int = Field(default=64, ge=1, le=1000)  # requests in flight at a time
    # What this teacher's candidates in the file may cost in all, those of earlier runs included; None: no bound.
    budget_tokens: int | None = Field(default=None, ge=1)
    budget_usd: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    price_in: float = Field(default=0.0, ge=0, allow_inf_nan=False)  # US$ for a million tokens of prompts
    price_out: float = Field(default=0.0, ge=0, allow_inf_nan=False)  # and of completions
    patience: int = Field(default=200, ge=1)  # the run ends after so many questions in a row that were given up

    @model_validator(mode="after")
    def _priced(self) -> SampleSettings:
        if self.budget_usd is not None and not (self.price_in or self.price_out):
            raise ValueError("a budget in US$ needs price_in and price_out")
        return self

    def cost(self, tokens: Tokens) -> float:
        """Return the price of tokens in US$."""
        return float(tokens @ (self.price_in, self.price_out)) / 1e6

    def allows(self, tokens: Tokens) -> bool:
        """Return whether so many tokens are within the budget."""
        within = self.budget_tokens is None or tokens.sum() <= self.budget_tokens
        return bool(within) and (self.budget_usd is None or self.cost(tokens) <= self.budget_usd)


@dataclass
class SampleSummary:
    """What a run of :func:`sample` did."""

    asked: int = 0  # candidates that it added
    present: int = 0  # that were there before
    left: int = 0  # that are still missing, given up or not reached
    # Those given up, by cause (HTTP status, timeout, refused, malformed), and what the endpoint said of the first.
    failed: Counter[str] = field(default_factory=Counter)
    said: dict[str, str] = field(default_factory=dict)
    tokens: Tokens = field(default_factory=lambda: NO_TOKENS)  # that it took
    seconds: float = 0.0
    stopped_by: Literal["", "budget", "faults"] = ""  # why it ended early


def sample(questions: Iterable[Question], teacher: Teacher, out: Path, settings: SampleSettings) -> SampleSummary:
    """Return what was done so that the file ``out`` holds all candidates of ``questions`` by this teacher.

    What is there already (same question, prompt, number, teacher, version) is not asked for again. All candidates of a
    question come before the next question's; what is given up, or Ctrl-C interrupts, is left to the next run. Questions
    are read one by one, and once. A CellDualityError is raised if the teacher can answer none (key, model, address) or
    the file cannot be read and appended to; what was answered is kept.
    """
    with CandidateLog(out) as log:
        run, begun = _Run(questions, teacher, log, settings), time.monotonic()
        try:
            asyncio.run(run.all())
        except KeyboardInterrupt:
            print(f"stopped: {run.did.asked} new candidates are kept in {out}; run it again to go on", file=sys.stderr)
            raise
        run.did.seconds = time.monotonic() - begun
        return run.did


class _Run:
    def __init__(self, questions: Iterable[Question], teacher: Teacher, log: CandidateLog, settings: SampleSettings):
        self.questions, self.teacher, self.log, self.settings = questions, teacher, log, settings
        self.done, self.spent = log.done(teacher)
        # An answer is counted at the most it can cost until it is there, so that the sum never passes the budget;
        # towards its end fewer requests are in flight at a time.
        self.reserved, self.settled = NO_TOKENS, asyncio.Event()
        self.did, self.in_a_row, self.wanted = SampleSummary(), 0, self._wanted()

    async def all(self) -> None:
        """Ask all there is to ask."""
        self.teacher.open(self.settings.concurrency)
        total = len(self.questions) * self.settings.candidates if isinstance(self.questions, Sized) else None
        with tqdm(total=total, desc=self.teacher.name) as bar:
            # Half of the workers build the next requests while those of the others are in flight.
            workers = [asyncio.create_task(self._work()) for _ in range(2 * self.settings.concurrency)]
            tasks = [*workers, asyncio.create_task(self._tick(bar))]
            try:
                _, others = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
                if others:
                    self.wanted.close()
                    await asyncio.wait(others, timeout=GRACE)
            finally:
                for task in tasks:
                    task.cancel()
                ends = await asyncio.gather(*tasks, return_exceptions=True)
                await self.teacher.close()
                self._show(bar)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _work(self) -> None:
        """Ask one question after the other until there are no more."""
        did = self.did
        for question, prompt, number in self.wanted:
            most = self.teacher.most(question)
            if not await self._reserve(most):
                did.stopped_by = did.stopped_by or "budget"
                did.left += 1
                continue  # so that the rest is counted
            try:
                reply = await self.teacher.answer(question, number)
                self.spent, did.tokens = self.spent + reply.tokens, did.tokens + reply.tokens
                self.log.add(Candidate(question.key, number, prompt, self.teacher.name, self.teacher.version, reply))
                did.asked, self.in_a_row = did.asked + 1, 0
            except PolicyError as failure:
                did.failed[failure.cause] += 1
                did.said.setdefault(failure.cause, getattr(failure, "detail", ""))
                did.left, self.in_a_row = did.left + 1, self.in_a_row + 1
                if self.in_a_row >= self.settings.patience:
                    did.stopped_by = did.stopped_by or "faults"
            finally:
                self.reserved = self.reserved - most
                self.settled.set()
            await asyncio.sleep(0)  # a rule never waits for anything, and would let nobody else run

    async def _reserve(self, most: Tokens) -> bool:
        """Wait until an answer that costs ``most`` fits the budget; False if it never will."""
        while not self.settings.allows(self.spent + self.reserved + most):
            if not self.reserved.any():  # nothing is in flight
                return False
            self.settled.clear()
            await self.settled.wait()
        self.reserved = self.reserved + most
        return True

    def _wanted(self) -> Generator[tuple[Question, str, int], None, None]:
        """Yield what is not there yet as (question, hash of its prompt, number), shared by all who ask."""
        for question in self.questions:
            prompt = prompt_hash(question.prompt)
            for number in range(self.settings.candidates):
                name = question.key, number, prompt
                if name in self.done:
                    self.did.present += 1
                elif self.did.stopped_by:
                    self.did.left += 1
                else:
                    self.done.add(name)
                    yield question, prompt, number

    async def _tick(self, bar: Any) -> None:
        """Show the state of the run, and have the disk keep it, until cancelled."""
        while True:
            await asyncio.sleep(TICK)
            self._show(bar)
            await asyncio.to_thread(self.log.sync)

    def _show(self, bar: Any) -> None:
        tokens, cost, failed = self.spent.sum(), self.settings.cost(self.spent), self.did.failed.total()
        parts = {f"{tokens:,} tokens": tokens, f"${cost:.2f}": cost, f"{failed} failed": failed}
        bar.set_postfix_str(", ".join(text for text, number in parts.items() if number), refresh=False)
        bar.update(self.did.present + self.did.asked - bar.n)
