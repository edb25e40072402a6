"""Asking a teacher for candidates: many at a time, each once, and never beyond the budget."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from cellduality_plugin.settings import Settings
from data_prep.traces.asking.budget import Budget, PaidTeacher, Tokens
from data_prep.traces.asking.display import Display
from data_prep.traces.asking.faults import TeacherFault
from data_prep.traces.asking.loops import run
from data_prep.traces.candidates import Candidate, Teacher
from data_prep.traces.log import CandidateLog, prompt_hash
from data_prep.traces.questions import Question

GRACE = 30.0
"""Seconds that requests in flight, which are paid for, are waited for when one of them tells that the run must end."""

TICK = 0.25
SYNC_EVERY = 4  # ticks


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


@dataclass(frozen=True)
class SampleSummary:
    """What a run of :func:`sample` did.

    Parameters
    ----------
    asked
        Candidates that this run added.
    present
        Candidates that were there before.
    left
        Candidates that are still wanting, given up or not reached.
    failed
        Of these, how many were given up, by the last fault: an HTTP status, timeout, connection or malformed.
    said
        What the endpoint said at the first fault of each kind.
    retried
        How often a question was asked again, by fault.
    tokens, cost
        What this run took, in US$ at the prices given.
    spent
        The tokens of this teacher's candidates in the file, earlier runs included.
    seconds
        How long this run took.
    stopped_by
        Why the run ended early: the budget, or too many faults in a row.
    """

    asked: int
    present: int
    left: int
    failed: Mapping[str, int]
    said: Mapping[str, str]
    retried: Mapping[str, int]
    tokens: Tokens
    cost: float
    spent: Tokens
    seconds: float
    stopped_by: Literal["", "budget", "faults"]


def sample(
    questions: Iterable[Question],
    teacher: Teacher,
    out: Path,
    settings: SampleSettings | None = None,
    *,
    show_progress: bool = True,
) -> SampleSummary:
    """Return what was done so that ``out`` holds all candidates of ``questions`` by this teacher.

    Candidates that are there already (same question, prompt, number, teacher and version) are not asked for again. All
    candidates of a question are asked for before the next question's, so that a run that is stopped leaves whole
    questions, which filters and pass rates can use; as SFT rows are shuffled, those are a fair sample of all.

    A question that is given up after its retries is counted and left to the next run. Ctrl-C drops what is in flight,
    which the next run asks for again, and goes on as a KeyboardInterrupt.

    Parameters
    ----------
    questions
        Read one by one, and once; a length, if they have one, is shown as the total.
    teacher
        A rule or an endpoint.
    out
        The file of candidates; it is appended to.
    settings
        How many, how many at a time, and at what cost.
    show_progress
        Whether a live counter is shown on stderr.

    Raises
    ------
    CellDualityError
        If the teacher can answer no question at all (key, model, address), another process appends to the file, a line
        of it is malformed, or it cannot be written. What was answered until then is kept.
    """
    with CandidateLog(out) as log:
        asking = _Run(questions, teacher, log, settings or SampleSettings())
        try:
            run(asking.all(show_progress))
        except KeyboardInterrupt:
            print(f"stopped: {asking.asked} new candidates are kept in {out}; run it again to go on", file=sys.stderr)
            raise
        return asking.summary()


@dataclass
class _Run:
    """One run: what is to be asked, and what has been counted."""

    questions: Iterable[Question]
    teacher: Teacher
    log: CandidateLog
    settings: SampleSettings
    asked: int = 0
    present: int = 0
    unreached: int = 0
    in_a_row: int = 0
    stopped_by: Literal["", "budget", "faults"] = ""
    ended: bool = False
    failed: Counter[str] = field(default_factory=Counter)
    said: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.begun = time.monotonic()
        self.paid = self.teacher if isinstance(self.teacher, PaidTeacher) else None
        self.retried = Counter(self.paid.retried) if self.paid else Counter[str]()
        self.name, self.version = self.teacher.name, self.teacher.version
        self.done = self.log.done(self.name, self.version)
        self.before = Tokens(self.done.prompt_tokens, self.done.completion_tokens)
        settings = self.settings
        prices = settings.price_in, settings.price_out
        self.budget = Budget(settings.budget_tokens, settings.budget_usd, *prices, spent=self.before)
        self.wanting = self._wanting()

    async def all(self, show_progress: bool) -> None:
        """Ask all there is to ask."""
        total = len(self.questions) * self.settings.candidates if isinstance(self.questions, Sized) else None
        with Display(self.name, total, shown=show_progress) as display:
            count = self.settings.concurrency
            if self.paid:
                self.paid.limit(count)
                count *= 2  # as many again build the next requests meanwhile
            workers = [asyncio.create_task(self._work()) for _ in range(count)]
            tasks = [*workers, asyncio.create_task(self._tick(display))]
            try:
                _, others = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
                if others:
                    self.ended = True
                    await asyncio.wait(others, timeout=GRACE)
            finally:
                for task in tasks:
                    task.cancel()
                ends = await asyncio.gather(*tasks, return_exceptions=True)
                if self.paid:
                    await self.paid.close()
                self._show(display)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _work(self) -> None:
        """Ask one question after the other until there are no more."""
        for question, prompt, number in self.wanting:
            most, used = self.paid.most(question) if self.paid else Tokens(), Tokens()
            if not await self.budget.reserve(most):
                self.stopped_by = self.stopped_by or "budget"
                self.unreached += 1
                continue  # so that the rest is counted
            try:
                reply = await self.teacher.answer(question, number)
                used = Tokens(reply.prompt_tokens, reply.completion_tokens)
                self.log.append(Candidate(question.key, number, prompt, self.name, self.version, reply))
            except TeacherFault as fault:
                self._give_up(fault)
            else:
                self.asked, self.in_a_row = self.asked + 1, 0
            finally:
                self.budget.settle(most, used)
            if not self.paid:
                await asyncio.sleep(0)  # a rule never waits for anything, and would let nobody else run

    def _wanting(self) -> Iterator[tuple[Question, str, int]]:
        """Yield what is not there yet as (question, hash of its prompt, number), shared by all who ask."""
        for question in self.questions:
            prompt = prompt_hash(question.prompt)
            for number in range(self.settings.candidates):
                if not self.done.claim(question.key, number, prompt):
                    self.present += 1
                elif self.stopped_by:
                    self.unreached += 1
                else:
                    yield question, prompt, number
                if self.ended:
                    return

    def _give_up(self, fault: TeacherFault) -> None:
        self.failed[fault.reason] += 1
        self.said.setdefault(fault.reason, fault.detail)
        self.in_a_row += 1
        if self.in_a_row >= self.settings.patience:
            self.stopped_by = self.stopped_by or "faults"

    async def _tick(self, display: Display) -> None:
        """Show the state of the run, and have the disk keep it, until cancelled."""
        for beat in itertools.count(1):
            await asyncio.sleep(TICK)
            self._show(display)
            if beat % SYNC_EVERY == 0:
                await asyncio.to_thread(self.log.sync)

    def _show(self, display: Display) -> None:
        seconds = time.monotonic() - self.begun
        display.update(self.present + self.asked, self.asked, self.failed, self.budget, seconds)

    def summary(self) -> SampleSummary:
        """Return what was done."""
        tokens = self.budget.spent - self.before
        return SampleSummary(
            asked=self.asked,
            present=self.present,
            left=self.unreached + sum(self.failed.values()),
            failed=dict(self.failed),
            said=self.said,
            retried=dict(Counter(self.paid.retried) - self.retried) if self.paid else {},
            tokens=tokens,
            cost=tokens.cost(self.settings.price_in, self.settings.price_out),
            spent=self.budget.spent,
            seconds=time.monotonic() - self.begun,
            stopped_by=self.stopped_by,
        )
