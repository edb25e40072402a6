"""Recorded rollouts under another reward: no model, no GPU, the same scorer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.records import NOT_RECORDED, Reading, RecordedPolicy, Row, read_groups
from cellduality_plugin.reward_names import shortened
from cellduality_plugin.scoring import Score, Scorer

RECORDED = "recorded"


@dataclass
class Column:
    """One reward of one task over recorded rollouts.

    A group is an array of a row a rollout: its reward, NaN if that asks what was not recorded; the reward of then; the
    truth, NaN where nobody knows it.
    """

    task: str
    reward: str
    groups: list[NDArray[np.float64]] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """How many rollouts do not count, because their reward asks what was not recorded."""
        return sum(int(np.isnan(group[:, 0]).sum()) for group in self.groups)

    def summary(self) -> tuple[int, float | None, float | None, float | None, float | None, float | None]:
        """Return the number of rollouts; mean; spread; the share without any; correlations with ``RECORDED`` and truth.

        Spread is the mean over groups of two or more of the standard deviation within; equal rewards have none.
        """
        groups = [group[~np.isnan(group[:, 0])] for group in self.groups]
        rewards, recorded, truths = np.concatenate(groups).T
        several = [group[:, 0] for group in groups if len(group) > 1]
        spread, flat = _mean([np.std(each) for each in several]), _mean([np.ptp(each) == 0 for each in several])
        like, true = _correlation(rewards, recorded), _correlation(rewards, truths)
        return len(rewards), _mean(rewards), spread, flat, like, true


def _mean(values: Any) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _correlation(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float | None:
    """Return Pearson's, in [-1, 1]; None where either does not vary."""
    known = ~np.isnan(theirs)
    x, y = ours[known], theirs[known]
    return None if len(x) < 2 or min(np.std(x), np.std(y)) < 1e-6 else float(np.clip(np.corrcoef(x, y)[0, 1], -1, 1))


class Replay:
    """Scores recorded groups anew, one at a time.

    ``config`` is that the rollouts were made with; a task that ``rewards`` does not name is scored as configured there.
    ``reading`` and ``groups`` count what was read so far, ``columns`` holds what came of it, by task and reward;
    ``"recorded"`` is the reward of then. A CellDualityError if a reward does not exist or cannot judge its task.
    """

    def __init__(self, config: Config, rewards: Mapping[str, str | dict[str, float]]) -> None:
        changed = config.with_each("reward", rewards, "--rewards")
        self._scorer = Scorer(changed)
        self._names = {name: shortened(task.reward) for name, task in changed.tasks.items()}
        self.reading, self.groups = Reading(), 0
        self.columns: dict[tuple[str, str], Column] = {}

    def run(self, files: Iterable[Path]) -> Iterator[list[Row]]:
        """Yield the results of each group; a CellDualityError if a file holds no records or a row cannot be judged."""
        for rows in (rows for path in files for rows in read_groups(path, self.reading)):
            self.groups += 1
            group, texts = self._scorer.group(rows[0]["label"]), [row["response"] for row in rows]
            scores = asyncio.run(self._scorer.score_all(texts, group, RecordedPolicy(rows)))
            results, task = list(map(_result, rows, scores)), rows[0]["task"]
            for name, paid in ((RECORDED, "recorded"), (self._names[task], "reward")):
                numbers = [[each[key] for key in (paid, "recorded", "truth")] for each in results]
                column = self.columns.setdefault((task, name), Column(task, name))
                column.groups.append(np.array(numbers, dtype=float))
            yield results


def _result(row: Row, score: Score) -> Row:
    """Return a rollout's rewards, now and then, and its truth: None if it could not be had, or nobody knows it."""
    task, logs = row["task"], score.logs
    return {
        "task": task, "row": row["row"], "group": row["group"],
        "reward": None if score.failure == NOT_RECORDED else score.reward, "recorded": float(row["reward"]),
        "truth": logs[f"dual_truth/{task}"] if logs[f"dual_truth_share/{task}"] > 0 else None, "failure": score.failure,
    }  # fmt: skip


def record_files(places: Sequence[Path]) -> list[Path]:
    """Return the record files in ``places``, files or folders of them, each once; a CellDualityError if none."""
    found: list[Path] = []
    for place in places:
        if not place.exists():
            where, hint = str(place), "name record files or their folder"
            raise CellDualityError("no such file or folder", code="missing-file", where=where, hint=hint)
        found += sorted(place.glob("*.jsonl")) if place.is_dir() else [place]
    if not found:
        where, hint = ", ".join(map(str, places)), "set `records` in cellduality.json (data prepare --records FOLDER)"
        raise CellDualityError("no records there", code="no-records", where=where, hint=hint)
    return list(dict.fromkeys(found))


def table(columns: Iterable[Column]) -> Table:
    """Return a table with a line for each reward of each task, to be printed with rich."""
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
    for name in ("task", "reward"):
        shown.add_column(name, overflow="fold")
    for name in ("n", "mean", "spread", "no spread", "r(recorded)", "r(truth)", "not recorded"):
        shown.add_column(name, justify="right")
    for column in sorted(columns, key=lambda column: (column.task, column.reward != RECORDED)):
        count, *figures, like, true = column.summary()
        numbers = (*figures, None if column.reward == RECORDED else like, true)
        cells = ("–" if number is None else f"{number:.3f}" for number in numbers)
        shown.add_row(column.task, column.reward, str(count), *cells, str(column.missing or "–"))
    return shown
