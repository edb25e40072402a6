"""Several runs of one recipe, seed by seed: mean, standard deviation, and the paired change from SFT to GRPO."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table
from scipy.stats import t as student

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.tables import ordered_keys, section_title, title, written

LEVEL = 0.95
"""Of every confidence interval over seeds."""


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n - 1) over seeds; the deviation of one value is NaN."""

    mean: float
    deviation: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of ``values``, of which there is at least one.

        Examples
        --------
        >>> Spread.of([1.0, 2.0, 3.0])
        Spread(mean=2.0, deviation=1.0, count=3)
        """
        deviation = statistics.stdev(values) if len(values) > 1 else math.nan
        return cls(statistics.fmean(values), deviation, len(values))

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the mean by Student's t with n - 1 degrees of freedom; None for one value.

        Examples
        --------
        >>> Spread.of([1.0, 2.0, 3.0]).interval
        (-0.484..., 4.484...)
        """
        if self.count < 2:
            return None
        half = t_quantile(self.count) * self.deviation / math.sqrt(self.count)
        return self.mean - half, self.mean + half

    def __str__(self) -> str:
        if math.isnan(self.deviation):
            return written(self.mean)
        return f"{written(self.mean)} ± {written(self.deviation)}"


def t_quantile(count: int) -> float:
    """Return how many standard errors a two-sided 95 % interval of a mean of ``count`` values (2 or more) spans.

    Examples
    --------
    >>> round(t_quantile(5), 3)
    2.776
    """
    return float(student.ppf(1 - (1 - LEVEL) / 2, count - 1))


def of_one_kind(runs: Sequence[Mapping[str, Any]]) -> None:
    """Refuse runs that cannot be averaged.

    Raises
    ------
    CellDualityError
        If there are none, or they are of different splits or have different columns.
    """
    if len({run["split"] for run in runs}) != 1 or len({tuple(run["columns"]) for run in runs}) != 1:
        raise CellDualityError(
            "the runs are not of one kind", where="metrics.json", mend="give runs of one recipe and one split"
        )


def values_of(runs: Sequence[Mapping[str, Any]], key: str, column: str) -> tuple[float, ...]:
    """Return metric ``key`` of ``column`` in every run, in their order; nothing if any run lacks it."""
    found = [run["columns"][column]["metrics"].get(key, {}).get("value") for run in runs]
    return () if None in found else tuple(found)


def over_seeds(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Spread]]:
    """Return {metric: {column: spread}} of several ``metrics.json``; a metric that a run lacks is left out.

    Raises
    ------
    CellDualityError
        If the runs are of different splits or have different columns.
    """
    of_one_kind(runs)
    found: dict[str, dict[str, Spread]] = {}
    for column in runs[0]["columns"]:
        for key in runs[0]["columns"][column]["metrics"]:
            if values := values_of(runs, key, column):
                found.setdefault(key, {})[column] = Spread.of(values)
    return found


def paired_change(runs: Sequence[Mapping[str, Any]], key: str, before: str, after: str) -> Spread:
    """Return the change of metric ``key`` from column ``before`` to column ``after``, seed by seed."""
    pairs = zip(values_of(runs, key, before), values_of(runs, key, after), strict=True)
    return Spread.of([second - first for first, second in pairs])


def seeds_table(runs: Sequence[Mapping[str, Any]], before: str = "SFT", after: str = "GRPO") -> Table:
    """Return the table of several runs: mean ± standard deviation a column, and the paired change."""
    spreads = over_seeds(runs)
    columns = list(runs[0]["columns"])
    shown = Table(title=f"{runs[0]['split']} split, {len(runs)} seeds, mean ± standard deviation", box=box.MARKDOWN)
    shown.add_column("metric", no_wrap=True)
    for name in columns:
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column(f"{before} to {after}", justify="right", no_wrap=True)
    for key in ordered_keys(runs[0]):
        row = spreads.get(key, {})
        if not row:
            continue
        better = next(iter(runs[0]["columns"][name]["metrics"][key]["better"] for name in row))
        change = str(paired_change(runs, key, before, after)) if {before, after} <= row.keys() else "–"
        task = section_title(key.rpartition("/")[0])
        shown.add_row(
            f"{task}: {title(key, better)}", *(str(row[name]) if name in row else "–" for name in columns), change
        )
    return shown
