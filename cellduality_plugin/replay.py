"""Recorded rollouts under another reward: no model, no GPU, the very same scorer."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich import box
from rich.table import Table

from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.policies.recorded import RecordedPolicy
from cellduality_plugin.records import Reading, Row, read_groups
from cellduality_plugin.reward_names import renamed
from cellduality_plugin.scoring import Group, Score, Scorer

NOT_RECORDED = "not_recorded"
RECORDED = "recorded"


@dataclass
class Pairs:
    """The correlation of two quantities, from sums alone.

    Examples
    --------
    >>> pairs = Pairs()
    >>> for x, y in [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)]:
    ...     pairs.add(x, y)
    >>> pairs.correlation
    -1.0
    """

    count: int = 0
    means: tuple[float, float] = (0.0, 0.0)
    squares: tuple[float, float] = (0.0, 0.0)
    product: float = 0.0

    def add(self, x: float, y: float) -> None:
        """Count one pair in (Welford)."""
        self.count += 1
        before = x - self.means[0], y - self.means[1]
        self.means = self.means[0] + before[0] / self.count, self.means[1] + before[1] / self.count
        after = x - self.means[0], y - self.means[1]
        self.squares = self.squares[0] + before[0] * after[0], self.squares[1] + before[1] * after[1]
        self.product += before[0] * after[1]

    @property
    def correlation(self) -> float | None:
        """Pearson's, in [-1, 1]; None where either does not vary."""
        scale = math.sqrt(self.squares[0] * self.squares[1])
        return max(-1.0, min(1.0, self.product / scale)) if scale > 1e-12 else None


@dataclass
class Column:
    """One reward of one task over the rollouts that it could judge.

    Attributes
    ----------
    spread : float
        The mean over groups of the standard deviation within a group: what the advantage is made of.
    flat : float
        The share of groups of two rollouts or more whose rewards are all equal.
    missing : int
        Rollouts left out, because this reward asks what was not recorded.
    """

    task: str
    reward: str
    missing: int = 0
    groups: int = 0
    flats: int = 0
    spreads: float = 0.0
    recorded: Pairs = field(default_factory=Pairs)
    truth: Pairs = field(default_factory=Pairs)

    def add(self, rewards: Sequence[float | None], recorded: Sequence[float], truths: Sequence[float | None]) -> None:
        """Count one group in; None is a reward that could not be had, or a truth that nobody knows."""
        had = [reward for reward in rewards if reward is not None]
        self.missing += len(rewards) - len(had)
        for reward, before, truth in zip(rewards, recorded, truths, strict=True):
            if reward is not None:
                self.recorded.add(reward, before)
                if truth is not None:
                    self.truth.add(reward, truth)
        if len(had) > 1:
            mean = math.fsum(had) / len(had)
            self.groups += 1
            self.flats += min(had) == max(had)
            self.spreads += math.sqrt(math.fsum((reward - mean) ** 2 for reward in had) / len(had))

    @property
    def count(self) -> int:
        """The rollouts it judged."""
        return self.recorded.count

    @property
    def mean(self) -> float | None:
        """The mean reward; None of nothing."""
        return self.recorded.means[0] if self.count else None

    @property
    def spread(self) -> float | None:
        """See the class."""
        return self.spreads / self.groups if self.groups else None

    @property
    def flat(self) -> float | None:
        """See the class."""
        return self.flats / self.groups if self.groups else None


class Replay:
    """Scores recorded groups anew, one at a time.

    Parameters
    ----------
    config
        The configuration the rollouts were made with: its vocabulary, its pairs, its dual settings.
    rewards
        The other rewards, by task; a task that is not named here is scored as configured.

    Attributes
    ----------
    reading
        What was read so far.
    columns
        What came of it, by task and reward; ``"recorded"`` is the reward of then.

    Raises
    ------
    CellDualityError
        If a reward does not exist or cannot judge its task.
    """

    def __init__(self, config: Config, rewards: Mapping[str, str | dict[str, float]]) -> None:
        changed = config.with_rewards(rewards)
        self._scorer = Scorer(changed)
        self._names = {name: written_reward(task.reward) for name, task in changed.tasks.items()}
        self.reading = Reading()
        self.columns: dict[tuple[str, str], Column] = {}

    def run(self, files: Iterable[Path]) -> Iterator[list[Row]]:
        """Yield the results of each group in ``files``.

        Raises
        ------
        CellDualityError
            If a file holds no records, or a row cannot be judged so.
        """
        for path in files:
            for rows in read_groups(path, self.reading):
                yield self._counted(rows, asyncio.run(self._rescored(rows)))

    async def _rescored(self, rows: Sequence[Row]) -> list[Score]:
        group, policy = self._scorer.group(rows[0]["label"]), RecordedPolicy(rows)
        return await asyncio.gather(*(self._one(row["response"], group, policy) for row in rows))

    async def _one(self, text: str, group: Group, policy: RecordedPolicy) -> Score:
        with group.member():
            await asyncio.sleep(0)  # so that all members have begun before the first of them ends, as in a run
            return await self._scorer.level(await self._scorer.score(text, group, policy), group)

    def _counted(self, rows: Sequence[Row], scores: Sequence[Score]) -> list[Row]:
        task = rows[0]["task"]
        missing = [score.failure == NOT_RECORDED for score in scores]
        rewards = [None if gone else score.reward for gone, score in zip(missing, scores, strict=True)]
        known = [score.logs[f"dual_truth_share/{task}"] > 0 for score in scores]
        truths = [score.logs[f"dual_truth/{task}"] if told else None for told, score in zip(known, scores, strict=True)]
        recorded = [float(row["reward"]) for row in rows]
        self._column(task, RECORDED).add(recorded, recorded, truths)
        self._column(task, self._names[task]).add(rewards, recorded, truths)
        return [
            {
                "task": task, "row": row["row"], "group": row["group"], "reward": reward, "recorded": before,
                "truth": truth, "failure": score.failure,
            }
            for row, reward, before, truth, score in zip(rows, rewards, recorded, truths, scores, strict=True)
        ]  # fmt: skip

    def _column(self, task: str, reward: str) -> Column:
        return self.columns.setdefault((task, reward), Column(task, reward))


def written_reward(reward: str | Mapping[str, float]) -> str:
    """Return a reward as the command line writes it, files without their folder.

    Examples
    --------
    >>> written_reward("a/mine.py:Mine"), written_reward({"posterior": 0.5, "duality": 2})
    ('mine.py:Mine', '0.5*posterior+2*duality')
    """
    if isinstance(reward, str):
        return renamed(reward, lambda kind: kind.rpartition("/")[2])
    return "+".join(f"{weight:g}*{written_reward(name)}" for name, weight in reward.items())


def record_files(places: Iterable[Path]) -> list[Path]:
    """Return the record files in ``places``, which are files or folders of them, each once.

    Raises
    ------
    CellDualityError
        If a place does not exist, or none holds a record file.
    """
    found: list[Path] = []
    places = list(places)
    for place in places:
        if not place.exists():
            raise CellDualityError("no such file or folder", where=str(place), mend="name record files or their folder")
        found += sorted(place.glob("*.jsonl")) if place.is_dir() else [place]
    if not found:
        raise CellDualityError(
            "no records there",
            where=", ".join(map(str, places)),
            mend="set `records` in the run's cellduality.json (cellduality data prepare --records FOLDER)",
        )
    return list(dict.fromkeys(found))


def table(columns: Iterable[Column]) -> Table:
    """Return a table with a line for each reward of each task, to be printed with rich."""
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
    for name in ("task", "reward"):
        shown.add_column(name, overflow="fold")
    for name in ("n", "mean", "spread", "no spread", "r(recorded)", "r(truth)", "not recorded"):
        shown.add_column(name, justify="right")
    for column in sorted(columns, key=lambda column: (column.task, column.reward != RECORDED)):
        like = None if column.reward == RECORDED else column.recorded.correlation
        numbers = (column.mean, column.spread, column.flat, like, column.truth.correlation)
        shown.add_row(
            column.task, column.reward, str(column.count), *map(_written, numbers), str(column.missing or "–")
        )
    return shown


def _written(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
