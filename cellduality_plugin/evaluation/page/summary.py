"""What an evaluation found, in a few words: one headline a section, before, after, baselines and real cells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cellduality_plugin.evaluation.tables import section_title, title, written
from cellduality_plugin.evaluation.winners import best_columns

HEADLINES = ("accuracy", "coarse_accuracy", "knn_agreement_{k}", "dual_similarity")
"""The metric by which a section is summed up: the first of these that a checkpoint has, k the evaluation's first."""


@dataclass(frozen=True)
class Headline:
    """The headline metric of one section.

    Parameters
    ----------
    section, metric
        Titles.
    key
        ``section/metric`` as in metrics.json.
    before, after
        Of the last checkpoint but one, and of the last; ``before`` is None if there is only one.
    baseline
        The name of the best baseline and its metric.
    real
        Of real cells.
    """

    section: str
    metric: str
    key: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any]
    baseline: tuple[str, Mapping[str, Any]] | None
    real: Mapping[str, Any] | None

    @property
    def gain(self) -> float | None:
        """After minus before, positive where it got better."""
        return None if self.before is None else _gain(self.before, self.after)

    @property
    def outside(self) -> bool:
        """Whether the change is larger than the half widths of both 95 % intervals, added as squares.

        That is the interval of a difference of two independent measurements. Both are of the same cells, which makes
        the true one narrower as a rule: what is outside of this one is so with some to spare.
        """
        intervals = [metric["interval"] for metric in (self.before, self.after) if metric and metric["interval"]]
        if self.gain is None or len(intervals) < 2:
            return False
        return abs(self.gain) > math.hypot(*((high - low) / 2 for low, high in intervals))

    @property
    def best(self) -> frozenset[str]:
        """Which of ``"before"``, ``"after"`` and ``"baseline"`` is best; several where they are equal."""
        rivals = {"before": self.before, "after": self.after, "baseline": self.baseline and self.baseline[1]}
        return best_columns({name: metric for name, metric in rivals.items() if metric}, "")

    @property
    def verdict(self) -> str:
        """What became of it, in a word or two."""
        gain = self.gain
        if gain is None:
            return "–"
        if round(gain, 4) == 0:
            return "unchanged"
        return ("better" if gain > 0 else "worse") if self.outside else "within interval"

    @property
    def beaten(self) -> bool:
        """Whether the best baseline is ahead of ``after``."""
        lead = self.baseline and _gain(self.after, self.baseline[1])
        return lead is not None and lead > 0


def headlines(metrics: Mapping[str, Any], checkpoints: Sequence[str]) -> list[Headline]:
    """Return the headline of each section of ``metrics`` in which the last of ``checkpoints`` has one."""
    columns = metrics["columns"]
    after = columns[checkpoints[-1]]["metrics"]
    found = []
    for section in metrics["spaces"]:
        key = _headline_key(after, section, metrics["settings"]["neighbours"][0])
        if key is None or after[key]["value"] is None:
            continue
        before = columns[checkpoints[-2]]["metrics"].get(key) if len(checkpoints) > 1 else None
        real = [c["metrics"][key] for c in columns.values() if c["kind"] == "real" and key in c["metrics"]]
        found.append(
            Headline(
                section_title(section),
                title(key, after[key]["better"]),
                key,
                before if before and before["value"] is not None else None,
                after[key],
                _best_baseline(columns, key),
                real[0] if real and real[0]["value"] is not None else None,
            )
        )
    return found


def _headline_key(column: Mapping[str, Any], section: str, neighbours: int) -> str | None:
    wanted = (f"{section}/{name.format(k=neighbours)}" for name in HEADLINES)
    return next((key for key in wanted if key in column), None)


def _best_baseline(columns: Mapping[str, Any], key: str) -> tuple[str, Mapping[str, Any]] | None:
    found = [
        (name, column["metrics"][key])
        for name, column in columns.items()
        if column["kind"] == "baseline" and key in column["metrics"]
    ]
    told = [each for each in found if each[1]["value"] is not None]
    return max(told, key=lambda each: _sign(each[1]) * each[1]["value"], default=None)


def _sign(metric: Mapping[str, Any]) -> int:
    return -1 if metric["better"] == "lower" else 1


def _gain(before: Mapping[str, Any], after: Mapping[str, Any]) -> float | None:
    if before["value"] is None or after["value"] is None:
        return None
    return float(_sign(after) * (after["value"] - before["value"]))


def sentences(found: Sequence[Headline], checkpoints: Sequence[str]) -> list[str]:
    """Return the summary in sentences, the most important first."""
    last = checkpoints[-1]
    told = []
    compared = [each for each in found if each.gain is not None]
    if compared:
        clear = [each for each in compared if each.outside]
        better = [_change(each) for each in clear if each.verdict == "better"]
        worse = [_change(each) for each in clear if each.verdict == "worse"]
        told.append(
            f"{last} is better than {checkpoints[-2]}, beyond the 95 % interval of the change, in {len(better)} of "
            f"{_count(len(compared), 'headline metric')}{_listed(better)}; worse in {len(worse)}{_listed(worse)}."
        )
    against = [each for each in found if each.baseline]
    if against:
        ahead: dict[str, list[str]] = {}
        for each in against:
            if each.baseline and each.beaten:
                ahead.setdefault(each.baseline[0], []).append(each.section)
        named = [f"{baseline} in {', '.join(sections)}" for baseline, sections in ahead.items()]
        lost = sum(map(len, ahead.values()))
        told.append(f"A baseline is ahead of {last} in {lost} of the {len(against)} that have one{_listed(named)}.")
    told += [_sentence(each, checkpoints) for each in found]
    return told


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _listed(found: Sequence[str]) -> str:
    return f": {'; '.join(found)}" if found else ""


def _change(each: Headline) -> str:
    name = each.metric.rpartition(" ")[0]
    before = written(each.before["value"]) if each.before else ""
    return f"{each.section} ({name} {before} to {written(each.after['value'])})"


def _sentence(each: Headline, checkpoints: Sequence[str]) -> str:
    name = each.metric.rpartition(" ")[0]
    parts = [f"{each.section[:1].upper()}{each.section[1:]}: {name} {written(each.after['value'])}"]
    if each.before is not None:
        parts.append(f"{written(each.before['value'])} before ({checkpoints[-2]})")
    if each.baseline:
        parts.append(f"{each.baseline[0]} {written(each.baseline[1]['value'])}")
    if each.real:
        parts.append(f"real cells {written(each.real['value'])}")
    return "; ".join(parts) + "."
