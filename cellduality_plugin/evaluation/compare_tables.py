"""Runs over seeds, and the arms of an experiment, as tables and dots for people and as JSON and CSV for machines."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from cellduality_plugin.evaluation.compare import (
    GOAL,
    LEVEL,
    Arm,
    Role,
    Row,
    Runs,
    Spread,
    check_runs,
    paired_change,
    percent,
    row_label,
    values_of,
)
from cellduality_plugin.evaluation.plots import MUTED, PALETTE, drawing, save_figure
from cellduality_plugin.evaluation.tables import ordered_keys, signed

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
COLOURS: dict[Role, str] = {"oracle": PALETTE[1], "arm": PALETTE[0], "reference": MUTED}
"""In the order from bottom to top of a panel."""
SHADE = {"certain": 0.16, "likely": 0.07, "none": 0.0}
"""How visible the gap is."""


def seeds_table(runs: Runs, before: str = "SFT", after: str = "GRPO") -> Table:
    """Return the table of several runs: mean ± standard deviation a column, and the paired change.

    A metric that a run lacks is left out. A CellDualityError if the runs are of different splits or columns.
    """
    check_runs(runs)
    columns = runs[0]["columns"]
    shown = _table("metric", *columns, f"{before} to {after}")
    shown.title = f"{runs[0]['split']} split, {len(runs)} seeds, mean ± standard deviation"
    for key in ordered_keys(runs[0]):
        values = {name: found for name in columns if (found := values_of(runs, key, name))}
        if not values:
            continue
        label = row_label(key, columns[next(iter(values))]["metrics"][key]["better"])
        change = paired_change(values[before], values[after]) if {before, after} <= values.keys() else ()
        shown.add_row(label, *(_mean(values.get(name, ())) for name in columns), _mean(change))
    return shown


def _table(first: str, *others: str, justify: Any = "right") -> Table:
    shown = Table(box=box.MARKDOWN)
    shown.add_column(first, no_wrap=True)
    for name in others:
        shown.add_column(name, justify=justify, no_wrap=True)
    return shown


def _mean(values: Sequence[float]) -> str:
    return str(Spread.of(values)) if values else "–"


def headline_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that tasks are judged by, inside the distribution first; of a task, the deciding one first."""
    return sorted(
        (row for row in rows if row.headline), key=lambda row: ("@" in row.section, row.section, row.headline)
    )


def markdown(rows: Sequence[Row], split: str) -> str:
    """Return the headlines as Markdown: means, changes, what they say of the goal, and how to read them."""
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
        text = {name: _mean(values) for name, values in row.values.items()}
        text |= {name: f"**{text[name]}**" for name in row.best()}
        best = next((f"{text[name]} {name}" for name in row.values if name in row.best("baseline")), "–")
        shown.add_row(row.label, *(text[name] for name in checkpoints), best, *(text[name] for name in real))
    return shown


def _changes_table(rows: Sequence[Row]) -> Table:
    """Return the paired change of every arm, its share of the gap, and the verdict."""
    reference = next((name for name, role in rows[0].roles.items() if role == "reference"), "") if rows else ""
    shown = _table("metric", "arm", f"change from {reference}", "share of the gap", "verdict", justify="left")
    for row in rows:
        for arm in row.arms:
            share = "–" if arm.share is None or row.roles[arm.name] == "oracle" else str(arm.share)
            shown.add_row(row.label if arm is row.arms[0] else "", arm.name, _change(arm), share, arm.verdict)
    return shown


def _change(arm: Arm) -> str:
    """Return a paired change with its interval, and a star where that excludes 0."""
    interval = arm.change.interval
    if interval is None:
        return signed(arm.change.mean)
    return f"{signed(arm.change.mean)} ({' to '.join(map(signed, interval))})" + ("\\*" if arm.clear else "")


def goal_lines(rows: Sequence[Row]) -> list[str]:
    """Return for each arm but the oracle how many gaps it closes by half or more, and what it harms.

    A task's gap is that of its deciding metric, harm that of any headline.
    """
    oracle = any(role == "oracle" for row in rows for role in row.roles.values())
    names = dict.fromkeys(arm.name for row in rows for arm in row.arms if row.roles[arm.name] == "arm")
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
    columns: dict[str, dict[str, Any]] = {
        name: {"role": row.roles[name], "values": list(values), **_spread("", Spread.of(values))}
        for name, values in row.values.items()
        if values
    }
    for arm in row.arms:
        share = {"share": arm.share and arm.share.value, "share_interval": arm.share and arm.share.interval}
        said = {"clear": arm.clear, **share, "outcome": arm.outcome, "verdict": arm.verdict}
        columns[arm.name] |= {**_spread("change_", arm.change), **said}
    return {"key": row.key, "better": row.better, "headline": row.headline, "gap": row.gap, "columns": columns}


def _spread(prefix: str, spread: Spread) -> dict[str, Any]:
    deviation = None if math.isnan(spread.deviation) else spread.deviation
    return {f"{prefix}mean": spread.mean, f"{prefix}deviation": deviation, f"{prefix}interval": spread.interval}


def as_csv(rows: Sequence[Row]) -> str:
    """Return a line for every metric and column; what a column has not is empty."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, CSV_COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in map(_row, rows):
        section, _, metric = row["key"].rpartition("/")
        for name, column in row["columns"].items():
            line: Mapping[str, Any] = {**row, **column, "section": section, "metric": metric, "column": name}
            bounds = {
                f"{what}_{side}": bound
                for what in ("change", "share")
                for side, bound in zip(("low", "high"), column.get(f"{what}_interval") or (), strict=False)
            }
            seeds = len(column["values"])
            writer.writerow({**line, **bounds, "seeds": seeds, "change": column.get("change_mean")})
    return stream.getvalue()


def save_plot(rows: Sequence[Row], *paths: Path) -> None:
    """Draw one panel a row into each of ``paths``: every seed faint, the mean with its standard deviation in front.

    SVG or PNG by their suffix, whole or not at all. Base models, baselines and real cells are left to the table: far
    off, they would press the arms together.
    """
    across = min(2, len(rows))
    down = math.ceil(len(rows) / across)
    most = max(len(_shown(row)) for row in rows)
    with drawing(5.0 * across, (0.95 + 0.3 * most) * down) as figure:
        panels = figure.subplots(down, across, squeeze=False).flatten()
        for place, row in enumerate(rows):
            _draw(panels[place], row, names=place % across == 0)
        for axes in panels[len(rows) :]:
            axes.set_axis_off()
        save_figure(figure, *paths)


def _shown(row: Row) -> list[str]:
    return [name for role in COLOURS for name in reversed([*row.roles]) if row.roles[name] == role]


def _draw(axes: Any, row: Row, *, names: bool) -> None:
    shown = _shown(row)
    spreads = {name: Spread.of(row.values[name]) for name in shown if row.values[name]}
    means = {row.roles[name]: spread.mean for name, spread in spreads.items()}
    if "oracle" in means and row.gap:
        axes.axvspan(means["reference"], means["oracle"], color=COLOURS["oracle"], alpha=SHADE[row.gap], linewidth=0)
    axes.axvline(means["reference"], color=COLOURS["reference"], linewidth=0.8, linestyle=":")
    for height, name in enumerate(shown):
        if not (values := row.values[name]):
            continue
        spread, colour = spreads[name], COLOURS[row.roles[name]]
        axes.plot(values, [height + 0.2] * len(values), "o", color=colour, alpha=0.35, markersize=4, markeredgewidth=0)
        if not math.isnan(spread.deviation):
            low, high = spread.mean - spread.deviation, spread.mean + spread.deviation
            axes.plot([low, high], [height, height], color=colour, linewidth=1.2)
        axes.plot(spread.mean, height, "D", color=colour, markersize=6)
    axes.set_yticks(range(len(shown)), shown if names else [""] * len(shown))
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_title(row.label, fontsize=8, loc="left")
    axes.margins(x=0.12)
