"""One audit: a checkpoint, labelled cells, several rewards; the content of audit.json."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from tqdm import tqdm

from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.audit.answers import AuditSettings, NearestCells, make_cases, read_audit_rows
from cellduality_plugin.evaluation.audit.contenders import (
    CONFIGURED,
    Contender,
    ask_policy,
    check_reward,
    contenders_for,
    judge,
    scorer_of,
)
from cellduality_plugin.evaluation.audit.engine import Players, Remembering
from cellduality_plugin.evaluation.audit.findings import Counting, finding
from cellduality_plugin.evaluation.audit.verdicts import verdict
from cellduality_plugin.examples import Example
from cellduality_plugin.files import read_jsonl, read_versioned
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.reward_names import shortened
from cellduality_plugin.tasks import DualTask

FORMAT, VERSION = "cellduality-audit", 2

Audited: TypeAlias = Mapping[DualTask, tuple[Sequence[Example], Sequence[Contender]]]
"""The rows of each task, and the contenders for it."""
Result = TypeVar("Result")


def audit(
    data: Path, config: Config, opened: Callable[[], AbstractContextManager[Players]], settings: AuditSettings
) -> dict[str, Any]:
    """Return the findings on every task and contender, each with its verdict, as JSON holds them.

    ``labels_used`` counts, by data set, the cells whose labels they rest on; ``seconds`` is how long it all took.
    ``data`` is the prepared folder with its ``audit.jsonl``, ``config`` that of the run to come. Before the players are
    opened, a CellDualityError if there is no such file, no row of a configured task in it, or a reward cannot judge any
    task.
    """
    wanted, begun, vocabulary = _check(data, config, settings), time.monotonic(), config.load_vocabulary()
    findings: list[dict[str, Any]] = []

    async def all_tasks(players: Players) -> None:
        memory = Remembering(players, timeout=config.dual.timeout_seconds)
        for task, (rows, contenders) in wanted.items():
            rng = np.random.default_rng([settings.seed, *task.name.encode()])
            cases = make_cases(task, rows, vocabulary, settings, rng)
            real = None if cases[0].names_a_label else NearestCells(rows)
            asking = (ask_policy(case, real, players, settings.samples, vocabulary) for case in cases)
            cases = await _gathered(f"{task.name} answers", asking)
            spread = config.tasks[task.name].minimum_spread
            how = Counting(settings.seed, settings.resamples, settings.masks_of_a_rollout, spread)
            for contender in contenders:
                scorer = scorer_of(config, task.name, contender)
                # Another split of the cell takes the place of all that the row holds.
                under = [each if contender.hidden is None else replace(each, splits=each.splits[:1]) for each in cases]
                judged = await _gathered(f"{task.name} judged", (judge(scorer, case, memory) for case in under))
                found = finding(contender, judged, how)
                findings.append({**found, "verdict": dict(zip(("grade", "words"), verdict(found), strict=True))})

    with opened() as players:
        asyncio.run(all_tasks(players))
    read = set[str]()  # the cells that were audited, and all that may be near a written one
    for task, (rows, _) in wanted.items():
        read |= {row.id for row in (rows[: settings.cells] if isinstance(task.answer, OneOf) else rows)}
    return {
        "format": FORMAT,
        "version": VERSION,
        "findings": findings,
        "seconds": time.monotonic() - begun,
        "labels_used": dict(Counter(sorted(name.partition("/")[0] for name in read))),
        "settings": {**asdict(settings), "rewards": [shortened(reward, ":") for reward in settings.rewards]},
    }


def _check(data: Path, config: Config, settings: AuditSettings) -> Audited:
    """Return what will be audited; raises as :func:`audit` does."""
    tasks, how = config.load_tasks(), (settings.rewards, settings.hidden, settings.traces)
    wanted = {
        tasks[name]: (rows, contenders_for(tasks[name], rows[0], config, *how))
        for name, rows in read_audit_rows(data, tasks).items()
    }
    fit = [CONFIGURED, *(contender.reward for _, contenders in wanted.values() for contender in contenders)]
    for reward in (each for each in settings.rewards if each not in fit):
        try:
            check_reward(reward, next(iter(wanted)), config)
        except CellDualityError as error:
            names = ", ".join(task.name for task in wanted)
            what = f"{shortened(reward, ':')} can judge none of {names}: {error.what}"
            raise CellDualityError(what, code="unfit-reward", where="--rewards", hint=error.hint) from error
    return wanted


async def _gathered(title: str, work: Iterable[Awaitable[Result]]) -> list[Result]:
    """Return the results of ``work``, all under way at once, in their order, with a progress bar."""
    waiting = list(work)  # tqdm's own gather would begin them in any order, and draws count in theirs
    # The supervisor of a recipe shows what stands behind a name in brackets.
    with tqdm(total=len(waiting), desc=f"[audit] {title}", leave=False) as bar:

        async def counted(each: Awaitable[Result]) -> Result:
            result = await each
            bar.update()
            return result

        return list(await asyncio.gather(*map(counted, waiting)))


def masks_in_training(path: Path, rows: int = 256) -> int:
    """Return the most masks that any of the first rows of an RL file holds; 1 without a file."""
    if not path.is_file():
        return 1
    first = itertools.islice(read_jsonl(path), rows)
    return max((len(Example.from_label(row["label"]).splits()) for row in first), default=1)


def read_audit(path: Path) -> dict[str, Any]:
    """Return the content of an audit file, or raise as :func:`cellduality_plugin.files.read_versioned`."""
    return read_versioned(path, FORMAT, VERSION, what="audit", hint="audit again (cellduality audit)")
