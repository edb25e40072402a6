"""What was found, in a few words: the headline metric of each section before and after, and the best baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cellduality_plugin.evaluation.metrics.registry import sums_up
from cellduality_plugin.evaluation.tables import (
    best_columns,
    cells_of,
    columns_of,
    gain_of,
    ordered_keys,
    real_column,
    section_title,
    title,
    written,
)


@dataclass(frozen=True)
class Headline:
    """The headline metric of one section."""

    section: str
    metric: str
    before: Mapping[str, Any] | None  # of the checkpoint that the last one is compared with, if there is one
    after: Mapping[str, Any]  # of the last
    baseline: tuple[str, Mapping[str, Any]] | None  # of the best one, with its name
    real: Mapping[str, Any] | None  # of real cells

    @property
    def gain(self) -> float | None:
        """After minus before, positive where it got better."""
        return None if self.before is None else gain_of(self.before, self.after)

    @property
    def outside(self) -> bool:
        """Whether the change exceeds the half widths of both 95 % intervals, added as squares.

        That is the interval of a difference of independent measurements; of the same cells it is rather too wide.
        """
        if self.gain is None or self.before is None or not (self.before["interval"] and self.after["interval"]):
            return False
        halves = [(high - low) / 2 for low, high in (self.before["interval"], self.after["interval"])]
        return abs(self.gain) > math.hypot(*halves)

    @property
    def best(self) -> frozenset[str]:
        """Which of ``"before"``, ``"after"`` and ``"baseline"`` is best; several where they are equal."""
        rivals = {"before": self.before, "after": self.after, "baseline": self.baseline and self.baseline[1]}
        return best_columns({name: metric for name, metric in rivals.items() if metric}, "")

    @property
    def verdict(self) -> str:
        """What became of it, in a word or two."""
        if self.gain is None:
            return "–"
        if round(self.gain, 4) == 0:
            return "unchanged"
        return ("better" if self.gain > 0 else "worse") if self.outside else "within interval"

    @property
    def beaten(self) -> bool:
        """Whether the best baseline is ahead of ``after``."""
        return self.baseline is not None and gain_of(self.after, self.baseline[1]) > 0


def compared(metrics: Mapping[str, Any]) -> list[str]:
    """Return the last checkpoint of an evaluation, and before it the one it is compared with: SFT or the one before."""
    checkpoints = columns_of(metrics, "checkpoint")
    before = ["SFT"] if "SFT" in checkpoints[:-1] else checkpoints[-2:-1]
    return [*before, *checkpoints[-1:]]


def headlines(metrics: Mapping[str, Any], checkpoints: Sequence[str]) -> list[Headline]:
    """Return the headline of each section of ``metrics`` in which the last of ``checkpoints`` has one."""
    k, found = metrics["settings"]["neighbours"][0], []
    ours = [key for key in ordered_keys(metrics) if key in metrics["columns"][checkpoints[-1]]["metrics"]]
    for section in metrics["spaces"]:
        own = (key for key in ours if key.rpartition("/")[0] == section and sums_up(key.rpartition("/")[2], k))
        if (key := next(own, None)) is None:
            continue
        cells = {name: cell for name, cell in cells_of(metrics, key).items() if cell["value"] is not None}
        if (after := cells.get(checkpoints[-1])) is None:
            continue
        baselines = [(name, cells[name]) for name in columns_of(metrics, "baseline") if name in cells]
        best = max(baselines, key=lambda each: gain_of(after, each[1]), default=None)
        before = cells.get(checkpoints[-2]) if len(checkpoints) > 1 else None
        name = title(key, after["better"])
        found.append(Headline(section_title(section), name, before, after, best, cells.get(real_column(metrics))))
    return found


def sentences(found: Sequence[Headline], checkpoints: Sequence[str]) -> list[str]:
    """Return what was found: how often the last checkpoint is better than the one before, and where baselines are."""
    last, said = checkpoints[-1], []
    if compared := [each for each in found if each.gain is not None]:
        clear = {word: [_change(each) for each in compared if each.verdict == word] for word in ("better", "worse")}
        said.append(
            f"{last} is better than {checkpoints[-2]}, beyond the 95 % interval of the change, in "
            f"{len(clear['better'])} of {len(compared)} headline metric{'s' if len(compared) > 1 else ''}"
            f"{_listed(clear['better'])}; worse in {len(clear['worse'])}{_listed(clear['worse'])}."
        )
    if against := [each for each in found if each.baseline]:
        ahead: dict[str, list[str]] = {}
        for each in against:
            if each.baseline and each.beaten:
                ahead.setdefault(each.baseline[0], []).append(each.section)
        named = [f"{baseline} in {', '.join(sections)}" for baseline, sections in ahead.items()]
        lost = sum(map(len, ahead.values()))
        said.append(f"A baseline is ahead of {last} in {lost} of the {len(against)} that have one{_listed(named)}.")
    return said


def _listed(found: Sequence[str]) -> str:
    return f": {'; '.join(found)}" if found else ""


def _change(each: Headline) -> str:
    before = written(each.before["value"]) if each.before else ""
    return f"{each.section} ({each.metric.rpartition(' ')[0]} {before} to {written(each.after['value'])})"
