"""Runs over seeds, and the arms of an experiment, as tables for people and as JSON and CSV for machines."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from cellduality_plugin.evaluation.compare import GOAL, Arm, Row
from cellduality_plugin.evaluation.seeds import LEVEL, Runs, Spread, of_one_kind, paired_change, percent, values_of
from cellduality_plugin.evaluation.tables import ordered_keys, section_title, signed, title

NOTES = (
    "mean ± standard deviation over seeds; bold: the best of a row, real cells apart",
    "changes are paired by seed, with a 95 % interval by Student's t over seeds; \\* it excludes 0; no correction for"
    " several comparisons",
    "share of the gap: (arm - reference) / (oracle - reference), a ratio of means, with Fieller's 95 % interval; only"
    " where the oracle's gain has an interval above 0 (a gap) or exceeds its deviation (a gap that is not certain)",
)
CSV_COLUMNS = (
    "section", "metric", "better", "headline", "gap", "column", "role", "seeds", "mean", "deviation", "change",
    "change_low", "change_high", "clear", "share", "share_low", "share_high", "outcome", "verdict",
)  # fmt: skip


def seeds_table(runs: Runs, before: str = "SFT", after: str = "GRPO") -> Table:
    """Return the table of several runs: mean ± standard deviation a column, and the paired change.

    A metric that a run lacks is left out. A CellDualityError if the runs are of different splits or columns.
    """
    of_one_kind(runs)
    columns = list(runs[0]["columns"])
    shown = _table("metric", *columns, f"{before} to {after}")
    shown.title = f"{runs[0]['split']} split, {len(runs)} seeds, mean ± standard deviation"
    for key in ordered_keys(runs[0]):
        values = {name: values_of(runs, key, name) for name in columns}
        if not any(values.values()):
            continue
        better = next(runs[0]["columns"][name]["metrics"][key]["better"] for name in columns if values[name])
        both = values.get(before) and values.get(after)
        change = str(Spread.of(paired_change(runs, key, before, after))) if both else "–"
        label = f"{section_title(key.rpartition('/')[0])}: {title(key, better)}"
        shown.add_row(label, *(str(Spread.of(values[name])) if values[name] else "–" for name in columns), change)
    return shown


def _table(first: str, *others: str, justify: Any = "right") -> Table:
    shown = Table(box=box.MARKDOWN)
    shown.add_column(first, no_wrap=True)
    for name in others:
        shown.add_column(name, justify=justify, no_wrap=True)
    return shown


def headline_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that tasks are judged by, inside the distribution first; of a task, the deciding one first."""
    return sorted(
        (row for row in rows if row.headline), key=lambda row: ("@" in row.section, row.section, row.headline)
    )


def markdown(rows: Sequence[Row], split: str) -> str:
    """Return both tables of the headlines, what they say of the goal, and how to read them; as Markdown."""
    shown = headline_rows(rows)
    seeds = max((len(values) for row in shown for values in row.values.values()), default=0)
    parts = [f"{split} split, {seeds} seeds", _text(_means_table(shown)), _text(_changes_table(shown))]
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in (*goal_lines(shown), *NOTES))]) + "\n"


def _text(table: Table) -> str:
    file = io.StringIO()
    Console(file=file, width=1000, color_system=None, markup=False, emoji=False, highlight=False).print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines() if line.strip())


def _means_table(rows: Sequence[Row]) -> Table:
    """Return mean ± standard deviation of every checkpoint, of the best baseline and of real cells."""
    roles = rows[0].roles if rows else {}
    checkpoints = [name for name, role in roles.items() if role not in ("baseline", "real")]
    real = [name for name, role in roles.items() if role == "real"]
    shown = _table("metric", *checkpoints, "best baseline", *real)
    for row in rows:
        best = next((f"{_value(row, name)} {name}" for name in row.values if name in row.best("baseline")), "–")
        shown.add_row(
            row.label, *(_value(row, name) for name in checkpoints), best, *(_value(row, name) for name in real)
        )
    return shown


def _value(row: Row, name: str) -> str:
    if not row.values[name]:
        return "–"
    told = str(Spread.of(row.values[name]))
    return f"**{told}**" if name in row.best() else told


def _changes_table(rows: Sequence[Row]) -> Table:
    """Return the paired change of every arm, its share of the gap, and the verdict."""
    reference = next((name for name, role in rows[0].roles.items() if role == "reference"), "") if rows else ""
    shown = _table("metric", "arm", f"change from {reference}", "share of the gap", "verdict", justify="left")
    for row in rows:
        for arm in row.arms:
            share = "–" if arm.share is None or row.roles[arm.name] == "oracle" else str(arm.share)
            shown.add_row(row.label if arm is row.arms[0] else "", arm.name, change_text(arm), share, arm.verdict)
    return shown


def change_text(arm: Arm) -> str:
    """Return a paired change with its interval, and a star where that excludes 0.

    Examples
    --------
    >>> change = Spread.of([0.1, 0.11, 0.12])
    >>> change_text(Arm("an arm", change, change, None, "gains", ""))
    '+0.110 (+0.085 to +0.135)\\\\*'
    """
    interval = arm.change.interval
    if interval is None:
        return signed(arm.change.mean)
    return f"{signed(arm.change.mean)} ({' to '.join(map(signed, interval))})" + ("\\*" if arm.clear else "")


def goal_lines(rows: Sequence[Row]) -> list[str]:
    """Return for each arm but the oracle how many gaps it closes by half or more, and what it harms.

    A task's gap is that of its deciding metric, harm that of any headline.
    """
    oracle = any(role == "oracle" for row in rows for role in row.roles.values())
    names = list(dict.fromkeys(arm.name for row in rows for arm in row.arms if row.roles[arm.name] == "arm"))
    lines = []
    for name in names:
        found = [(row, arm) for row in rows for arm in row.arms if arm.name == name]
        shares = [arm.share for row, arm in found if row.headline == 1 and arm.share is not None]
        closed = sum(share.value >= GOAL for share in shares)
        gaps = f"closes {percent(GOAL)} or more of {closed} of {len(shares)} gaps; " if oracle else ""
        harms = "; ".join(
            f"{sure} {', '.join(harmed)}"
            for sure in ("harms", "may harm")
            if (harmed := [row.label for row, arm in found if arm.outcome == sure])
        )
        lines.append(f"**{name}** {gaps}{harms or 'harms nothing clearly'}")
    return lines


def as_json(rows: Sequence[Row], split: str, seeds: Sequence[Any]) -> dict[str, Any]:
    """Return everything as what JSON can hold: metric by metric, headlines or not, every column with its seeds."""
    return {
        "format": "cellduality-arms",
        "version": 1,
        "split": split,
        "seeds": list(seeds),
        "level": LEVEL,
        "intervals": {"change": "Student's t over seeds, paired", "share": "Fieller's, over seeds"},
        "goal": GOAL,
        "rows": [_row(row) for row in rows],
    }


def _row(row: Row) -> dict[str, Any]:
    arms = {arm.name: _arm(arm) for arm in row.arms}
    columns = {
        name: {"role": row.roles[name], "values": list(values), **_spread("", Spread.of(values)), **arms.get(name, {})}
        for name, values in row.values.items()
        if values
    }
    return {"key": row.key, "better": row.better, "headline": row.headline, "gap": row.gap, "columns": columns}


def _spread(prefix: str, spread: Spread) -> dict[str, Any]:
    deviation = None if math.isnan(spread.deviation) else spread.deviation
    return {f"{prefix}mean": spread.mean, f"{prefix}deviation": deviation, f"{prefix}interval": spread.interval}


def _arm(arm: Arm) -> dict[str, Any]:
    share = {"share": arm.share and arm.share.value, "share_interval": arm.share and arm.share.interval}
    told = {"clear": arm.clear, **share, "outcome": arm.outcome, "verdict": arm.verdict}
    return {**_spread("change_", arm.change), **told}


def as_csv(rows: Sequence[Row]) -> str:
    """Return a line for every metric and column; what a column has not is empty."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, CSV_COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        told = _row(row)
        section, _, metric = row.key.rpartition("/")
        for name, column in told["columns"].items():
            line: Mapping[str, Any] = {**told, **column, "section": section, "metric": metric, "column": name}
            bounds = {
                f"{what}_{side}": bound
                for what in ("change", "share")
                for side, bound in zip(("low", "high"), column.get(f"{what}_interval") or (), strict=False)
            }
            seeds = len(column["values"])
            writer.writerow({**line, **bounds, "seeds": seeds, "change": column.get("change_mean")})
    return stream.getvalue()
