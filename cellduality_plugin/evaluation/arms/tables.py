"""The arms of an experiment as Markdown for people, and as JSON and CSV for machines."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from cellduality_plugin.evaluation.arms.comparing import GOAL, Arm, Role, Row
from cellduality_plugin.evaluation.arms.shares import percent
from cellduality_plugin.evaluation.seeds import LEVEL, Spread
from cellduality_plugin.evaluation.tables import section_title, signed, title

FORMAT = {"format": "cellduality-arms", "version": 1}

NOTES = (
    "mean ± standard deviation over seeds; bold: the best of a row, real cells apart",
    "changes are paired by seed, with a 95 % interval by Student's t over seeds; \\* it excludes 0; no correction for"
    " several comparisons",
    "share of the gap: (arm - reference) / (oracle - reference), a ratio of means, with Fieller's 95 % interval; only"
    " where the oracle's gain has an interval above 0 (a gap) or exceeds its deviation (a gap that is not certain)",
)


def headline_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that tasks are judged by, inside the distribution first; of a task, the deciding one first."""
    return sorted(
        (row for row in rows if row.headline), key=lambda row: ("@" in row.section, row.section, row.headline)
    )


def label(row: Row) -> str:
    """Return the name of a row as tables show it."""
    return f"{section_title(row.section)}: {title(row.key, row.better)}"


def markdown(rows: Sequence[Row], split: str) -> str:
    """Return both tables of the headlines, what they say of the goal, and how to read them; as Markdown."""
    shown = headline_rows(rows)
    seeds = max((len(values) for row in shown for values in row.values.values()), default=0)
    parts = [f"{split} split, {seeds} seeds", _text(means_table(shown)), _text(changes_table(shown))]
    goals = [f"- {line}" for line in goal_lines(shown)]
    return "\n\n".join([*parts, "\n".join([*goals, *(f"- {note}" for note in NOTES)])]) + "\n"


def _text(table: Table) -> str:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=1000, color_system=None, markup=False, emoji=False, highlight=False)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    lines = (line.rstrip() for line in console.file.getvalue().splitlines())
    return "\n".join(line for line in lines if line)


def means_table(rows: Sequence[Row]) -> Table:
    """Return mean ± standard deviation of every checkpoint, of the best baseline and of real cells."""
    roles: Mapping[str, Role] = rows[0].roles if rows else {}
    checkpoints = [name for name, role in roles.items() if role not in ("baseline", "real")]
    real = [name for name, role in roles.items() if role == "real"]
    shown = Table(box=box.MARKDOWN)
    shown.add_column("metric", no_wrap=True)
    for name in (*checkpoints, "best baseline", *real):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        cells = [_value(row, name) for name in checkpoints]
        shown.add_row(label(row), *cells, _best_baseline(row), *(_value(row, name) for name in real))
    return shown


def _value(row: Row, name: str) -> str:
    if not row.values[name]:
        return "–"
    told = str(Spread.of(row.values[name]))
    return f"**{told}**" if name in row.best() else told


def _best_baseline(row: Row) -> str:
    means = {
        name: Spread.of(row.values[name]).mean
        for name, role in row.roles.items()
        if role == "baseline" and row.values[name]
    }
    if not means:
        return "–"
    name = (max if row.better == "higher" else min)(means, key=lambda name: means[name])
    return f"{_value(row, name)} {name}"


def changes_table(rows: Sequence[Row]) -> Table:
    """Return the paired change of every arm, its share of the gap, and the verdict."""
    reference = next((name for name, role in rows[0].roles.items() if role == "reference"), "") if rows else ""
    shown = Table(box=box.MARKDOWN)
    for name in ("metric", "arm", f"change from {reference}", "share of the gap", "verdict"):
        shown.add_column(name, no_wrap=True)
    for row in rows:
        for arm in row.arms:
            name = label(row) if arm is row.arms[0] else ""
            share = "–" if arm.share is None or row.roles[arm.name] == "oracle" else str(arm.share)
            shown.add_row(name, arm.name, change_text(arm), share, arm.verdict)
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
            f"{'may harm' if sure == 'may harm' else 'harms'} {', '.join(rows_of)}"
            for sure in ("harms", "may harm")
            if (rows_of := [label(row) for row, arm in found if arm.outcome == sure])
        )
        lines.append(f"**{name}** {gaps}{harms or 'harms nothing clearly'}")
    return lines


def as_json(rows: Sequence[Row], split: str, seeds: Sequence[Any]) -> dict[str, Any]:
    """Return everything as what JSON can hold: metric by metric, headlines or not, every column with its seeds."""
    return {
        **FORMAT,
        "split": split,
        "seeds": list(seeds),
        "level": LEVEL,
        "intervals": {"change": "Student's t over seeds, paired", "share": "Fieller's, over seeds"},
        "goal": GOAL,
        "rows": [_row(row) for row in rows],
    }


def _row(row: Row) -> dict[str, Any]:
    arms = {arm.name: arm for arm in row.arms}
    return {
        "key": row.key,
        "better": row.better,
        "headline": row.headline,
        "gap": row.gap,
        "columns": {
            name: {"role": row.roles[name], "values": list(values)}
            | _spread("", Spread.of(values))
            | (_arm(arms[name]) if name in arms else {})
            for name, values in row.values.items()
            if values
        },
    }


def _spread(prefix: str, spread: Spread) -> dict[str, Any]:
    deviation = None if math.isnan(spread.deviation) else spread.deviation
    return {f"{prefix}mean": spread.mean, f"{prefix}deviation": deviation, f"{prefix}interval": spread.interval}


def _arm(arm: Arm) -> dict[str, Any]:
    share = arm.share
    shares = {"share": share and share.value, "share_interval": share and share.interval}
    return {
        **_spread("change_", arm.change),
        "clear": arm.clear,
        **shares,
        "outcome": arm.outcome,
        "verdict": arm.verdict,
    }


CSV_COLUMNS = (
    "section", "metric", "better", "headline", "gap", "column", "role", "seeds", "mean", "deviation", "change",
    "change_low", "change_high", "clear", "share", "share_low", "share_high", "outcome", "verdict",
)  # fmt: skip


def as_csv(rows: Sequence[Row]) -> str:
    """Return a line for every metric and column; what a column has not is empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for row in rows:
        told = _row(row)
        for name, column in told["columns"].items():
            section, _, metric = row.key.rpartition("/")
            change, share = (column.get(f"{what}_interval") or (None, None) for what in ("change", "share"))
            writer.writerow(
                [
                    section, metric, row.better, row.headline, row.gap, name, column["role"], len(column["values"]),
                    column["mean"], column["deviation"], column.get("change_mean"), *change, column.get("clear"),
                    column.get("share"), *share, column.get("outcome"), column.get("verdict"),
                ]
            )  # fmt: skip
    return stream.getvalue()
