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
from typing import Literal, TypeAlias

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cellduality_plugin.policies.base import PolicyError
from data_prep.traces.asking.budget import Budget, SampleSettings, figures
from data_prep.traces.candidates import Candidate, CandidateLog, Teacher, Tokens, prompt_hash
from data_prep.traces.questions import Question

GRACE = 30.0
"""Seconds that requests in flight, which are paid for, are waited for when one of them tells that the run must end."""

TICK = 0.25
"""Seconds between updates of the counter; every fourth has the disk keep what was written."""

StoppedBy: TypeAlias = Literal["", "budget", "faults"]


@dataclass(frozen=True)
class SampleSummary:
    """What a run of :func:`sample` did.

    Parameters
    ----------
    asked, present, left
        Candidates that this run added, that were there before, and that are still wanting, given up or not reached.
    failed
        How many were given up, by cause: an HTTP status, timeout, refused or malformed.
    said
        What the endpoint said at the first failure of each cause.
    retried
        How often a question was asked again, by cause.
    tokens, cost
        What this run took, in US$ at the prices given.
    spent
        The tokens of this teacher's candidates in the file, earlier runs included.
    seconds
        How long this run took.
    stopped_by
        Why the run ended early: the budget, or too many failures in a row.
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
    stopped_by: StoppedBy


def sample(
    questions: Iterable[Question],
    teacher: Teacher,
    out: Path,
    settings: SampleSettings | None = None,
    *,
    show_progress: bool = True,
) -> SampleSummary:
    """Return what was done so that the file ``out`` holds all candidates of ``questions`` by this teacher.

    Candidates that are there already (same question, prompt, number, teacher and version) are not asked for again. All
    candidates of a question are asked for before the next question's, so that a run that is stopped leaves whole
    questions. A question that is given up after its retries is left to the next run, and so is what Ctrl-C interrupts.
    Questions are read one by one, and once; a live counter on stderr shows their number if they have a length.

    Raises
    ------
    CellDualityError
        If the teacher can answer no question at all (key, model, address), another process appends to the file, a line
        of it is malformed, or it cannot be written. What was answered until then is kept.
    """
    with CandidateLog(out) as log:
        run = _Run(questions, teacher, log, settings or SampleSettings())
        try:
            asyncio.run(run.all(show_progress))
        except KeyboardInterrupt:
            print(f"stopped: {run.asked} new candidates are kept in {out}; run it again to go on", file=sys.stderr)
            raise
        return run.summary()


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
    stopped_by: StoppedBy = ""
    ended: bool = False
    failed: Counter[str] = field(default_factory=Counter)
    said: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.begun = time.monotonic()
        self.done = self.log.done(self.teacher)
        self.before = self.done.tokens
        self.budget = Budget(self.settings, self.before)
        self.wanting = self._wanting()

    async def all(self, show_progress: bool) -> None:
        """Ask all there is to ask."""
        self.teacher.open(self.settings.concurrency)
        with _progress(show_progress) as bar:
            total = len(self.questions) * self.settings.candidates if isinstance(self.questions, Sized) else None
            bar.add_task(self.teacher.name, total=total, figures="")
            # Half of the workers build the next requests while those of the others are in flight.
            workers = [asyncio.create_task(self._work()) for _ in range(2 * self.settings.concurrency)]
            tasks = [*workers, asyncio.create_task(self._tick(bar))]
            try:
                _, others = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
                if others:
                    self.ended = True
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
        for question, prompt, number in self.wanting:
            most, used = self.teacher.most(question), Tokens()
            if not await self.budget.reserve(most):
                self.stopped_by = self.stopped_by or "budget"
                self.unreached += 1
                continue  # so that the rest is counted
            try:
                reply = await self.teacher.answer(question, number)
                used = reply.tokens
                self.log.add(Candidate(question.key, number, prompt, self.teacher.name, self.teacher.version, reply))
                self.asked, self.in_a_row = self.asked + 1, 0
            except PolicyError as failure:
                self._give_up(failure)
            finally:
                self.budget.settle(most, used)
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

    def _give_up(self, failure: PolicyError) -> None:
        self.failed[failure.cause] += 1
        self.said.setdefault(failure.cause, getattr(failure, "detail", ""))
        self.in_a_row += 1
        if self.in_a_row >= self.settings.patience:
            self.stopped_by = self.stopped_by or "faults"

    async def _tick(self, bar: Progress) -> None:
        """Show the state of the run, and have the disk keep it, until cancelled."""
        for beat in itertools.count(1):
            await asyncio.sleep(TICK)
            self._show(bar)
            if beat % 4 == 0:
                await asyncio.to_thread(self.log.sync)

    def _show(self, bar: Progress) -> None:
        shown = figures(self.asked, time.monotonic() - self.begun, sum(self.failed.values()), self.budget)
        bar.update(bar.task_ids[0], completed=self.present + self.asked, figures=shown)

    def summary(self) -> SampleSummary:
        """Return what was done."""
        tokens = self.budget.spent - self.before
        return SampleSummary(
            asked=self.asked,
            present=self.present,
            left=self.unreached + sum(self.failed.values()),
            failed=dict(self.failed),
            said=self.said,
            retried=dict(self.teacher.retried),
            tokens=tokens,
            cost=self.settings.cost(tokens),
            spent=self.budget.spent,
            seconds=time.monotonic() - self.begun,
            stopped_by=self.stopped_by,
        )


def _progress(shown: bool) -> Progress:
    """Return a live counter on stderr, or one that shows nothing."""
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"), TimeRemainingColumn(),
    )  # fmt: skip
    return Progress(*columns, console=Console(stderr=True), refresh_per_second=2, disable=not shown)
