"""One audit: a checkpoint, labelled cells, several rewards; audit.json, audit.md and audit.png."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.audit.answers import Case, RealCells, by_task, can_be_audited, make_cases, truths
from cellduality_plugin.evaluation.audit.asking import Remembering
from cellduality_plugin.evaluation.audit.contenders import (
    CONFIGURED,
    Contender,
    RewardName,
    check_reward,
    contenders_for,
    reward_title,
)
from cellduality_plugin.evaluation.audit.engine import Players
from cellduality_plugin.evaluation.audit.findings import Answered, Counting, finding
from cellduality_plugin.evaluation.audit.judging import judge, scorer_of
from cellduality_plugin.examples import Example
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.policies.base import Policy, PolicyError
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.vocabulary import Vocabulary

FORMAT = "cellduality-audit"
VERSION = 2
FILE = "audit.jsonl"

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is done, how much of it, and of how much."""


@dataclass(frozen=True)
class AuditSettings:
    """How rewards are put to the test.

    Parameters
    ----------
    rewards, hidden, traces
        Which, and under which shares of hidden genes and numbers of reasoning traces: every combination that makes
        sense; see :func:`cellduality_plugin.evaluation.audit.contenders.contenders_for`.
    cells
        Of each task, at the most.
    masks
        Masks of a cell that are looked at; None for all that a row holds.
    masks_of_a_rollout
        Of how many masks the reward of a rollout is the mean in training.
    samples, temperature
        The policy's own answers to a question, and how they are drawn.
    others
        Real cells of other conditions that a generated cell is held against.
    seed, resamples
        Of every random choice, and of bootstrap intervals.
    """

    rewards: tuple[RewardName, ...] = ()
    hidden: tuple[float, ...] = ()
    traces: tuple[int, ...] = ()
    cells: int = 32
    masks: int | None = None
    masks_of_a_rollout: int = 1
    samples: int = 8
    temperature: float = 1.0
    others: int = 4
    seed: int = 0
    resamples: int = 500


def audit(
    data: Path, config: Config, players: Players, settings: AuditSettings, progress: Progress | None = None
) -> dict[str, Any]:
    """Return the findings on every task and contender, as JSON holds them.

    ``labels_used`` counts, by data set, the cells whose labels they rest on; ``seconds`` is how long it all took.

    Parameters
    ----------
    data
        The prepared folder, with its ``audit.jsonl``.
    config
        The pairs, their rewards and how duals are asked: those of the run to come.
    players
        Who answers and who plays the dual.

    Raises
    ------
    CellDualityError
        If there is no audit file, no row of a configured task in it, or a reward cannot judge any task.
    """
    rows, wanted = check(data, config, settings)
    auditor = _Auditor(config, config.load_vocabulary(), players, settings, progress or _silent)
    begun = time.monotonic()
    findings = asyncio.run(auditor.all(rows, wanted))
    return {
        "format": FORMAT,
        "version": VERSION,
        "findings": findings,
        "seconds": time.monotonic() - begun,
        "labels_used": _labels_used(rows, settings.cells),
        "settings": {**asdict(settings), "rewards": [reward_title(reward) for reward in settings.rewards]},
    }


def check(
    data: Path, config: Config, settings: AuditSettings
) -> tuple[dict[DualTask, list[Example]], dict[str, list[Contender]]]:
    """Return the rows of each task and the contenders for it, by name; raises as :func:`audit` does."""
    tasks = config.load_tasks()
    rows = read_audit_rows(data, tasks)
    wanted = {
        name: contenders_for(
            tasks[name], found[0], config, rewards=settings.rewards, hidden=settings.hidden, traces=settings.traces
        )
        for name, found in rows.items()
    }
    _refuse_idle(settings.rewards, wanted, config, tasks)
    return {tasks[name]: examples for name, examples in rows.items()}, wanted


def _labels_used(rows: Mapping[DualTask, Sequence[Example]], cells: int) -> dict[str, int]:
    """Return how many cells of each set had their label read: those audited, and all that may be near a written one."""
    ids = {
        row.id
        for task, examples in rows.items()
        for row in (examples[:cells] if isinstance(task.answer, OneOf) else examples)
    }
    return dict(Counter(sorted(name.partition("/")[0] for name in ids)))


def read_audit_rows(data: Path, tasks: Mapping[str, DualTask]) -> dict[str, list[Example]]:
    """Return the labelled rows of ``data`` by task.

    Raises
    ------
    CellDualityError
        If there is no such file (the folder was prepared by an older version), or no row of ``tasks`` in it.
    """
    path = data / FILE
    if not path.is_file():
        raise CellDualityError(
            "no cells to audit", where=str(path), mend="prepare the data again (cellduality data prepare)"
        )
    rows = by_task(read_jsonl(path), {name: task for name, task in tasks.items() if can_be_audited(task)})
    if not rows:
        raise CellDualityError(
            f"no row of {', '.join(tasks)}", where=str(path), mend="prepare the data again, with --audit-cells above 0"
        )
    return rows


def masks_in_training(path: Path, rows: int = 256) -> int:
    """Return the most masks that any of the first rows of an RL file holds; 1 without a file."""
    if not path.is_file():
        return 1
    first = itertools.islice(read_jsonl(path), rows)
    return max((len(Example.from_label(row["label"]).splits()) for row in first), default=1)


def _refuse_idle(
    asked: Sequence[RewardName],
    wanted: Mapping[str, Sequence[Contender]],
    config: Config,
    tasks: Mapping[str, DualTask],
) -> None:
    """Raise if a reward that was asked for can judge none of the tasks, with the reason for the first of them."""
    fit = [contender.reward for contenders in wanted.values() for contender in contenders]
    for reward in asked:
        if reward != CONFIGURED and reward not in fit:
            try:
                check_reward(reward, tasks[next(iter(wanted))], config)
            except CellDualityError as error:
                what = f"{reward_title(reward)} can judge none of {', '.join(wanted)}: {error.what}"
                raise CellDualityError(what, where="--rewards", mend=error.mend) from error


class _Auditor:
    """Asks and counts, task by task and contender by contender."""

    def __init__(
        self, config: Config, vocabulary: Vocabulary, players: Players, settings: AuditSettings, progress: Progress
    ) -> None:
        self._config, self._vocabulary, self._players, self._settings = config, vocabulary, players, settings
        self._progress = progress

    async def all(
        self, rows: Mapping[DualTask, Sequence[Example]], wanted: Mapping[str, Sequence[Contender]]
    ) -> list[dict[str, Any]]:
        players = self._players
        memory = Remembering(
            players.dual,
            players.prompt_tokens,
            players.response_tokens,
            timeout=self._config.dual.timeout_seconds,
        )
        return [
            found
            for task, examples in rows.items()
            async for found in self._task(task, examples, wanted[task.name], memory)
        ]

    async def _task(
        self, task: DualTask, rows: Sequence[Example], contenders: Sequence[Contender], memory: Remembering
    ) -> AsyncIterator[dict[str, Any]]:
        settings = self._settings
        cases = make_cases(
            task,
            rows,
            self._vocabulary,
            cells=settings.cells,
            masks=settings.masks,
            others=settings.others,
            rng=np.random.default_rng([settings.seed, *task.name.encode()]),
        )
        real = None if cases[0].names_a_label else RealCells(rows)
        answering = (self._answers(case, real) for case in cases)
        answered = await self._counted(f"{task.name}: answers", answering, len(cases))
        spread = self._config.tasks[task.name].minimum_spread
        how = Counting(settings.masks_of_a_rollout, spread, settings.seed, settings.resamples)
        for contender in contenders:
            scorer = scorer_of(self._config, task.name, contender)
            # Another split of the cell takes the place of all that the row holds.
            under = [each if contender.hidden is None else replace(each, splits=each.splits[:1]) for each in cases]
            judging = (judge(scorer, case, own.samples, memory) for case, own in zip(under, answered, strict=True))
            judged = await self._counted(f"{task.name}: {contender.title}", judging, len(cases))
            yield finding(task.name, contender, judged, answered, how)

    async def _counted(self, title: str, work: Any, total: int) -> list[Any]:
        """Return the results of coroutines in their order, which are awaited together and told of one by one."""
        done = 0
        self._progress(title, done, total)

        async def told(each: Any) -> Any:
            nonlocal done
            result = await each
            done += 1
            self._progress(title, done, total)
            return result

        return list(await asyncio.gather(*map(told, work)))

    async def _answers(self, case: Case, real: RealCells | None) -> Answered:
        """Return the policy's own answers to the question of ``case``."""
        prompt = case.task.primal_prompt(case.example.inputs, self._vocabulary)
        draws = (_response(self._players.sampler, prompt) for _ in range(self._settings.samples))
        greedy, *samples = await asyncio.gather(
            _response(self._players.greedy, prompt) if case.names_a_label else _nothing(), *draws
        )
        values = tuple(case.task.parse_answer(text, self._vocabulary).value for text in samples)
        own = case.task.parse_answer(greedy, self._vocabulary).value
        return Answered(own, tuple(samples), values, truths(case, values, real))


async def _response(policy: Policy, prompt: str) -> str:
    """Return the response to ``prompt``, or an empty one, which nothing can be read in, where there is none."""
    try:
        return await policy.generate(prompt)
    except PolicyError:
        return ""


async def _nothing() -> str:
    return ""


def _silent(title: str, done: int, total: int) -> None:
    pass


def read_audit(path: Path) -> dict[str, Any]:
    """Return the content of an audit file.

    Raises
    ------
    CellDualityError
        If it is missing, not JSON, or of another format or version.
    """
    mend = "audit again (cellduality audit)"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CellDualityError("no audit", where=str(path), mend=mend) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CellDualityError(f"unreadable audit: {error}", where=str(path), mend=mend) from error
    if not isinstance(content, dict) or (content.get("format"), content.get("version")) != (FORMAT, VERSION):
        raise CellDualityError(f"not a {FORMAT} file of version {VERSION}", where=str(path), mend=mend)
    return content
