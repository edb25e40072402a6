"""Arms of one experiment over seeds: each beside the checkpoint it started from, and beside the oracle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.metrics.registry import SHARED, Group, headlines
from cellduality_plugin.evaluation.seeds import (
    Gap,
    Runs,
    Share,
    Spread,
    gap_of,
    of_one_kind,
    percent,
    share_of,
    values_of,
)
from cellduality_plugin.evaluation.tables import ordered_keys, section_title, signed, title
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.tasks import TASKS

GOAL = 0.5
"""The share of every gap that self-supervision is to close."""

Role: TypeAlias = Literal["before", "reference", "arm", "oracle", "baseline", "real"]
Outcome: TypeAlias = Literal["closes", "falls short", "no gap", "harms", "may harm", "gains", "no change", "unknown"]


@dataclass(frozen=True)
class Arm:
    """One arm in one metric.

    Parameters
    ----------
    name
        Its column.
    change, gain
        Its value less that of the reference, seed by seed; the same with the sign that makes better positive.
    share
        Of the oracle's gain; None where the oracle gains nothing, or there is none.
    outcome, verdict
        What that comes to, in one term and in plain words.
    """

    name: str
    change: Spread
    gain: Spread
    share: Share | None
    outcome: Outcome
    verdict: str

    @property
    def clear(self) -> bool:
        """Whether the 95 % interval of the change excludes 0."""
        interval = self.change.interval
        return interval is not None and not interval[0] <= 0 <= interval[1]


@dataclass(frozen=True)
class Row:
    """One metric of one task: the values of every column by seed, and what they say of the arms.

    Parameters
    ----------
    key, better
        ``section/metric``; ``higher`` or ``lower``.
    headline
        The place among the headlines of the task, from 1, which decides; 0 if it is none.
    values, roles
        By column: values in the order of the runs, none where a run lacks one; what the column is.
    gap
        Whether the oracle gains anything over the reference; None without an oracle.
    arms
        The oracle's first, if any.
    """

    key: str
    better: str
    headline: int
    values: Mapping[str, tuple[float, ...]]
    roles: Mapping[str, Role]
    gap: Gap | None
    arms: tuple[Arm, ...]

    @property
    def section(self) -> str:
        """The task, with ``@ood`` or ``@set`` outside the distribution."""
        return self.key.rpartition("/")[0]

    @property
    def label(self) -> str:
        """The name of the row in tables."""
        return f"{section_title(self.section)}: {title(self.key, self.better)}"

    def best(self, *roles: Role) -> set[str]:
        """Return the columns of ``roles`` (by default all but real cells, the ceiling) with the best mean."""
        means = {
            name: Spread.of(values).mean
            for name, values in self.values.items()
            if values and (self.roles[name] in roles if roles else self.roles[name] != "real")
        }
        top = (max if self.better == "higher" else min)(means.values(), default=None)
        return {name for name, mean in means.items() if mean == top}


def headline_of(key: str) -> int:
    """Return the place of a metric among the headlines of its task, from 1; 0 if it is none.

    Examples
    --------
    >>> headline_of("cell_type_annotation@kidney_immune/macro_f1"), headline_of("my_task/accuracy")
    (2, 1)
    >>> headline_of("conditional_cell_generation/mmd")
    0
    """
    section, _, metric = key.rpartition("/")
    pair, groups = TASKS.get(section.partition("@")[0]), list[Group](["labels", "cells"])
    if pair is not None and isinstance(pair.answer, OneOf):
        groups = ["labels"]
    elif pair is not None:
        groups = ["responses", "cells"] if "control" in pair.needs else ["cells"]
    names = headlines(groups)
    return names.index(own) + 1 if (own := metric.removeprefix(SHARED)) in names else 0


def compare(runs: Runs, reference: str = "SFT", oracle: str = "oracle") -> list[Row]:
    """Return a row for every metric that has a better direction and that the reference has in every run.

    Parameters
    ----------
    runs
        All of the same columns and split.
    reference
        The checkpoint that all arms start from. Checkpoints in columns before it are no arms.
    oracle
        The arm that was rewarded by the true answers; empty if there is none.

    Raises
    ------
    CellDualityError
        If the runs are not of one kind, or a column is not there.
    """
    of_one_kind(runs)
    roles = roles_of(runs[0]["columns"], reference, oracle)
    rows = []
    for key in ordered_keys(runs[0]):
        values = {name: values_of(runs, key, name) for name in roles}
        better = {run["columns"][reference]["metrics"].get(key, {}).get("better") for run in runs}
        if values[reference] and better <= {"higher", "lower"}:
            rows.append(_row(key, better.pop(), values, roles, reference))
    return rows


def roles_of(columns: Mapping[str, Mapping[str, Any]], reference: str, oracle: str) -> dict[str, Role]:
    """Return what every column is; a CellDualityError if the reference or the oracle is no checkpoint among them.

    Examples
    --------
    >>> columns = {"base": {"kind": "checkpoint"}, "SFT": {"kind": "checkpoint"}, "paper": {"kind": "checkpoint"}}
    >>> roles_of(columns, "SFT", "")
    {'base': 'before', 'SFT': 'reference', 'paper': 'arm'}
    """
    checkpoints = [name for name, column in columns.items() if column["kind"] == "checkpoint"]
    for flag, name in (("--reference", reference), ("--oracle", oracle)):
        if name not in checkpoints and (name or flag == "--reference"):
            no_oracle = ", or --oracle '' without one" if flag == "--oracle" else ""
            hint = f"choose among {', '.join(checkpoints)}{no_oracle}"
            raise CellDualityError(f"no checkpoint {name!r}", where=flag, hint=hint)
    first = checkpoints.index(reference)
    found: dict[str, Role] = {}
    for name, column in columns.items():
        if column["kind"] != "checkpoint":
            found[name] = "real" if column["kind"] == "real" else "baseline"
        elif name in (reference, oracle):
            found[name] = "reference" if name == reference else "oracle"
        else:
            found[name] = "arm" if checkpoints.index(name) > first else "before"
    return found


def _row(
    key: str, better: str, values: Mapping[str, tuple[float, ...]], roles: Mapping[str, Role], reference: str
) -> Row:
    sign = 1.0 if better == "higher" else -1.0
    changes = {
        name: [after - before for before, after in zip(values[reference], values[name], strict=True)]
        for wanted in ("oracle", "arm")
        for name, role in roles.items()
        if role == wanted and values[name]
    }
    gains = {name: [sign * change for change in found] for name, found in changes.items()}
    whole = next((gains[name] for name in gains if roles[name] == "oracle"), None)
    gap = gap_of(Spread.of(whole)) if whole else None
    arms = []
    for name in changes:
        change, gain = Spread.of(changes[name]), Spread.of(gains[name])
        share = share_of(gains[name], whole) if whole and gap in ("certain", "likely") else None
        outcome, verdict = judge(change, gain, gap, share)
        if roles[name] == "oracle" and outcome != "unknown":
            told = {"certain": "a gap", "likely": "a gap that is not certain", "none": "no gap"}[gap or "none"]
            verdict = f"{told} ({signed(change.mean)})"
        arms.append(Arm(name, change, gain, share, outcome, verdict))
    return Row(key, better, headline_of(key), values, roles, gap, tuple(arms))


def judge(change: Spread, gain: Spread, gap: Gap | None, share: Share | None) -> tuple[Outcome, str]:
    """Return what the gain of an arm comes to, in one term and in plain words.

    It harms where the 95 % interval of its gain is below 0, and may harm where the mean loss exceeds its deviation.
    It closes a gap where it closes :data:`GOAL` of it or more. One seed says nothing.

    Examples
    --------
    >>> loss = Spread.of([-0.01, -0.03, -0.05])
    >>> judge(loss, loss, "none", None)
    ('may harm', 'may harm (-0.0300)')
    """
    interval, told = gain.interval, f"({signed(change.mean)})"
    if interval is None:
        return "unknown", "one seed says nothing"
    if interval[1] < 0:
        return "harms", f"harms {told}"
    closes = share is not None and share.value >= GOAL
    if not closes and -gain.mean > gain.deviation:
        return "may harm", f"may harm {told}"
    if share is not None:
        whole, part = "the gap" if gap == "certain" else "a gap that is not certain", percent(share.value)
        if share.value >= 1:
            return "closes", f"closes all of {whole} ({part})"
        return "closes" if closes else "falls short", f"closes {part if share.value > 0 else 'nothing'} of {whole}"
    if gap == "none":
        return "no gap", "no gap to close" + (f"; gains all the same {told}" if interval[0] > 0 else "")
    return ("gains", f"gains {told}") if interval[0] > 0 else ("no change", "no clear change")
