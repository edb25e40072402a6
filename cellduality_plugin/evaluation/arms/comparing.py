"""Arms of one experiment over seeds: each beside the checkpoint it started from, and beside the oracle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.arms.shares import Gap, Share, gap_of, percent, share_of
from cellduality_plugin.evaluation.seeds import Spread, of_one_kind, values_of
from cellduality_plugin.evaluation.tables import ordered_keys, signed

HEADLINES: Mapping[str, tuple[str, ...]] = {
    "cell_type_annotation": ("accuracy", "macro_f1"),
    "conditional_cell_generation": ("knn_agreement_10",),
    "drug_exposure_prediction": ("accuracy", "macro_f1"),
    "drug_sensitivity_prediction": ("accuracy", "macro_f1"),
    "perturbation_response_generation": ("shift_error", "knn_agreement_10"),
}
"""The metrics by which each task is judged, the one that decides first. Chosen before any arm was trained."""

OTHER_HEADLINES = ("accuracy", "macro_f1", "knn_agreement_10")
"""Those of a task of one's own."""

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
    change
        Its value less that of the reference, seed by seed.
    gain
        The same with the sign that makes better positive.
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
    key
        ``section/metric``.
    better
        ``higher`` or ``lower``.
    headline
        The place among the headlines of the task, from 1, which decides; 0 if it is none.
    values
        By column, in the order of the runs; empty where a run lacks one.
    roles
        What each column is.
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

    def best(self) -> set[str]:
        """Return the columns with the best mean; real cells, which are the ceiling, do not compete."""
        means = {
            name: Spread.of(values).mean
            for name, values in self.values.items()
            if values and self.roles[name] != "real"
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
    metric = metric.removeprefix("coarse_")  # of a foreign set
    names = HEADLINES.get(section.partition("@")[0], OTHER_HEADLINES)
    return names.index(metric) + 1 if metric in names else 0


def compare(runs: Sequence[Mapping[str, Any]], reference: str = "SFT", oracle: str = "oracle") -> list[Row]:
    """Return a row for every metric that has a better direction and that the reference has in every run.

    Parameters
    ----------
    runs
        One ``metrics.json`` a seed, all of the same columns and split.
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
    """Return what every column is.

    Raises
    ------
    CellDualityError
        If the reference or the oracle is not a checkpoint among them.

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
            mend = f"choose among {', '.join(checkpoints)}{no_oracle}"
            raise CellDualityError(f"no checkpoint {name!r}", where=flag, mend=mend)
    first = checkpoints.index(reference)
    found: dict[str, Role] = {}
    for name, column in columns.items():
        if column["kind"] != "checkpoint":
            found[name] = "real" if column["kind"] == "real" else "baseline"
        elif name == reference:
            found[name] = "reference"
        elif name == oracle:
            found[name] = "oracle"
        else:
            found[name] = "arm" if checkpoints.index(name) > first else "before"
    return found


def _row(
    key: str, better: str, values: Mapping[str, tuple[float, ...]], roles: Mapping[str, Role], reference: str
) -> Row:
    sign = 1.0 if better == "higher" else -1.0
    changes = {
        name: tuple(after - before for before, after in zip(values[reference], values[name], strict=True))
        for name, role in roles.items()
        if role in ("oracle", "arm") and values[name]
    }
    gains = {name: [sign * change for change in found] for name, found in changes.items()}
    oracle = next((name for name, role in roles.items() if role == "oracle"), None)
    whole = gains.get(oracle) if oracle else None
    gap = gap_of(Spread.of(whole)) if whole else None
    arms = []
    for name in sorted(changes, key=lambda name: roles[name] != "oracle"):
        change, gain = Spread.of(changes[name]), Spread.of(gains[name])
        share = share_of(gains[name], whole) if whole and gap in ("certain", "likely") else None
        outcome = outcome_of(gain, gap, share)
        verdict = _oracle_verdict(change, gap) if name == oracle else verdict_of(outcome, change, gain, gap, share)
        arms.append(Arm(name, change, gain, share, outcome, verdict))
    return Row(key, better, headline_of(key), values, roles, gap, tuple(arms))


def outcome_of(gain: Spread, gap: Gap | None, share: Share | None) -> Outcome:
    """Return what the gain of an arm comes to.

    It harms where the 95 % interval of its gain is below 0, and may harm where the mean loss exceeds its deviation.
    It closes a gap where it closes :data:`GOAL` of it or more. One seed says nothing.
    """
    interval = gain.interval
    if interval is None:
        return "unknown"
    if interval[1] < 0:
        return "harms"
    if share is not None and share.value >= GOAL:
        return "closes"
    if -gain.mean > gain.deviation:
        return "may harm"
    if share is not None:
        return "falls short"
    if gap == "none":
        return "no gap"
    return "gains" if interval[0] > 0 else "no change"


def verdict_of(outcome: Outcome, change: Spread, gain: Spread, gap: Gap | None, share: Share | None) -> str:
    """Return the outcome of an arm in plain words.

    Examples
    --------
    >>> loss = Spread.of([-0.02, -0.03, -0.04])
    >>> verdict_of("may harm", loss, loss, "none", None)
    'may harm (-0.0300)'
    """
    if outcome in ("harms", "may harm"):
        return f"{outcome} ({signed(change.mean)})"
    if share is not None:
        whole = "the gap" if gap == "certain" else "a gap that is not certain"
        if share.value >= 1:
            return f"closes all of {whole} ({percent(share.value)})"
        return f"closes {percent(share.value)} of {whole}" if share.value > 0 else f"closes nothing of {whole}"
    if outcome == "unknown":
        return "one seed says nothing"
    interval = gain.interval
    gains = f"gains all the same ({signed(change.mean)})" if interval and interval[0] > 0 else ""
    if outcome == "no gap":
        return f"no gap to close; {gains}" if gains else "no gap to close"
    return f"gains ({signed(change.mean)})" if outcome == "gains" else "no clear change"


def _oracle_verdict(change: Spread, gap: Gap | None) -> str:
    if change.interval is None:
        return "one seed says nothing"
    told = {"certain": "a gap", "likely": "a gap that is not certain", "none": "no gap"}
    return f"{told[gap or 'none']} ({signed(change.mean)})"
