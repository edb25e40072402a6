"""One audit: a checkpoint, labelled cells, several rewards; audit.json, audit.md and audit.png."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.audit.answers import Case, by_task, can_be_audited, make_cases, real_cells, truths
from cellduality_plugin.evaluation.audit.asking import Remembering
from cellduality_plugin.evaluation.audit.engine import Players
from cellduality_plugin.evaluation.audit.findings import Answered, Counting, finding
from cellduality_plugin.evaluation.audit.judging import judge, scorer_of
from cellduality_plugin.examples import Example, Value
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.policy import Policy, PolicyError
from cellduality_plugin.reward_names import renamed
from cellduality_plugin.rewards import get_reward
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.vocabulary import Vocabulary

FORMAT = "cellduality-audit"
VERSION = 1
FILE = "audit.jsonl"
DEFAULTS = ("duality", "duality-ruzicka", "duality-rbo", "likelihood", "posterior", "oracle")
"""The built-in rewards that are audited besides the configured one; the others are these under another name."""
CONFIGURED = "configured"
"""Stands for the reward that the configuration gives a task."""

RewardName: TypeAlias = "str | Mapping[str, float]"
Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is done, how much of it, and of how much."""


@dataclass(frozen=True)
class AuditSettings:
    """How rewards are put to the test.

    Parameters
    ----------
    rewards
        Which, :data:`CONFIGURED` among them; empty for the configured one and those of :data:`DEFAULTS` that can judge
        the task.
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
    """Return the findings on every task and reward, as JSON holds them.

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
    findings = asyncio.run(auditor.all(rows, wanted))
    return {
        "format": FORMAT,
        "version": VERSION,
        "findings": findings,
        "settings": {**asdict(settings), "rewards": [reward_title(reward) for reward in settings.rewards]},
    }


def check(
    data: Path, config: Config, settings: AuditSettings
) -> tuple[dict[DualTask, list[Example]], dict[str, list[RewardName]]]:
    """Return the rows of each task and the rewards that can judge it, by name; raises as :func:`audit` does."""
    tasks = config.load_tasks()
    rows = read_audit_rows(data, tasks)
    wanted = {name: rewards_for(tasks[name], config, settings.rewards) for name in rows}
    _refuse_idle(settings.rewards, wanted)
    return {tasks[name]: examples for name, examples in rows.items()}, wanted


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


def rewards_for(task: DualTask, config: Config, asked: Sequence[RewardName]) -> list[RewardName]:
    """Return those of the rewards that can judge ``task``, each once; by default the configured one and the built-in.

    Raises
    ------
    CellDualityError
        If there is no reward of a name.
    """
    own = config.tasks[task.name].reward
    fit: list[RewardName] = []
    for name in (own if name == CONFIGURED else name for name in asked or (CONFIGURED, *DEFAULTS)):
        if name in fit:
            continue
        reward = get_reward(name if isinstance(name, str) else dict(name), config.folder)
        with contextlib.suppress(CellDualityError):
            reward.check(task)
            fit.append(name)
    return fit


def reward_title(reward: RewardName) -> str:
    """Return a reward's name as tables show it.

    Examples
    --------
    >>> reward_title({"posterior": 2, "duality": 1}), reward_title("path/to/mine.py:Mine")
    ('2*posterior+duality', 'Mine')
    """
    if isinstance(reward, str):
        return renamed(reward, lambda kind: kind.rpartition(":")[2])
    return "+".join(f"{weight:g}*{reward_title(name)}".removeprefix("1*") for name, weight in reward.items())


def _refuse_idle(asked: Sequence[RewardName], wanted: Mapping[str, Sequence[RewardName]]) -> None:
    """Raise if a reward that was asked for can judge none of the tasks."""
    for reward in asked:
        if reward != CONFIGURED and not any(reward in names for names in wanted.values()):
            raise CellDualityError(
                f"{reward_title(reward)} can judge none of {', '.join(wanted)}", where="--rewards", mend="leave it out"
            )


class _Auditor:
    """Asks and counts, task by task and reward by reward."""

    def __init__(
        self, config: Config, vocabulary: Vocabulary, players: Players, settings: AuditSettings, progress: Progress
    ) -> None:
        self._config, self._vocabulary, self._players, self._settings = config, vocabulary, players, settings
        self._progress = progress

    async def all(
        self, rows: Mapping[DualTask, Sequence[Example]], wanted: Mapping[str, Sequence[RewardName]]
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
        self, task: DualTask, rows: Sequence[Example], rewards: Sequence[RewardName], memory: Remembering
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
        real = real_cells(rows)
        answering = (self._answers(case, real) for case in cases)
        answered = await self._counted(f"{task.name}: answers", answering, len(cases))
        spread = self._config.tasks[task.name].minimum_spread
        how = Counting(settings.masks_of_a_rollout, spread, settings.seed, settings.resamples)
        for reward in rewards:
            scorer = scorer_of(self._config, task.name, reward)
            judging = (judge(scorer, case, own.samples, memory) for case, own in zip(cases, answered, strict=True))
            judged = await self._counted(f"{task.name}: {reward_title(reward)}", judging, len(cases))
            yield finding(task.name, reward_title(reward), judged, answered, how)

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

    async def _answers(self, case: Case, real: Sequence[tuple[Value, Value]]) -> Answered:
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
