"""Runs over seeds, and the arms of an experiment, as tables and dots for people and as JSON and CSV for machines."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cellduality_plugin.evaluation import compare
from cellduality_plugin.evaluation.compare import Role, Row, Runs, Spread, arms_of, best_of, percent
from cellduality_plugin.evaluation.plots import MUTED, PALETTE, drawing, save_figure
from cellduality_plugin.evaluation.tables import markdown, ordered_keys, signed

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
COLOURS: dict[Role, str] = {"oracle": PALETTE[1], "arm": PALETTE[0], "reference": MUTED}  # from bottom to top
SHADE = {"certain": 0.16, "likely": 0.07, "none": 0.0}  # how visible the gap is


def seeds_table(runs: Runs, before: str = "SFT", after: str = "GRPO") -> str:
    """Return the table of several runs in Markdown: mean ± standard deviation a column, and the paired change."""
    compare.check_runs(runs)
    columns, rows = runs[0]["columns"], list[list[str]]()
    for key in ordered_keys(runs[0]):
        values = {name: found for name in columns if (found := compare.values_of(runs, key, name))}
        if values:
            label = compare.row_label(key, columns[next(iter(values))]["metrics"][key]["better"])
            change = compare.paired_change(values[before], values[after]) if {before, after} <= values.keys() else ()
            rows.append([label, *(_mean(values.get(name, ())) for name in columns), _mean(change)])
    title = f"{runs[0]['split']} split, {len(runs)} seeds, mean ± standard deviation"
    return f"{title}\n\n{markdown(['metric', *columns, f'{before} to {after}'], *rows, right=True)}"


def _mean(values: Sequence[float]) -> str:
    return str(Spread.of(values)) if values else "–"


def headline_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that tasks are judged by, inside the distribution first; of a task, the deciding one first."""
    found = [row for row in rows if row["headline"]]
    return sorted(found, key=lambda row: ("@" in row["key"], row["key"].rpartition("/")[0], row["headline"]))


def as_markdown(rows: Sequence[Row], split: str) -> str:
    """Return the headlines as Markdown: means, changes, what they say of the goal, and how to read them."""
    shown = headline_rows(rows)
    seeds = max((len(column["values"]) for row in shown for column in row["columns"].values()), default=0)
    parts = [f"{split} split, {seeds} seeds", _means_table(shown), _changes_table(shown)]
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in (*goal_lines(shown), *NOTES))]) + "\n"


def _label(row: Row) -> str:
    return compare.row_label(row["key"], row["better"])


def _of(rows: Sequence[Row], *roles: Role) -> list[str]:
    return [name for name, column in rows[0]["columns"].items() if column["role"] in roles] if rows else []


def _means_table(rows: Sequence[Row]) -> str:
    """Return mean ± standard deviation of every checkpoint, of the best baseline and of real cells."""
    checkpoints, real = _of(rows, "before", "reference", "arm", "oracle"), _of(rows, "real")
    lines = [["metric", *checkpoints, "best baseline", *real]]
    for row in rows:
        text = {name: _mean(column["values"]) for name, column in row["columns"].items()}
        text |= {name: f"**{text[name]}**" for name in best_of(row)}
        best = next((f"{text[name]} {name}" for name in text if name in best_of(row, "baseline")), "–")
        lines.append([_label(row), *(text[name] for name in checkpoints), best, *(text[name] for name in real)])
    return markdown(*lines, right=True)


def _changes_table(rows: Sequence[Row]) -> str:
    """Return the paired change of every arm, its share of the gap, and the verdict."""
    lines = [["metric", "arm", f"change from {''.join(_of(rows, 'reference'))}", "share of the gap", "verdict"]]
    for row in rows:
        for place, (name, arm) in enumerate(arms_of(row).items()):
            share = "–"
            if arm["share"] is not None and arm["role"] != "oracle":
                bounds = " to ".join(map(percent, arm["share_interval"] or ())) or "no bounds"
                share = f"{percent(arm['share'])} ({bounds})"
            change = signed(arm["change_mean"])
            if interval := arm["change_interval"]:
                change += f" ({' to '.join(map(signed, interval))})" + ("\\*" if arm["clear"] else "")
            lines.append(["" if place else _label(row), name, change, share, arm["verdict"]])
    return markdown(*lines)


def goal_lines(rows: Sequence[Row]) -> list[str]:
    """Return for each arm but the oracle how many gaps of deciding metrics it closes, and which headlines it harms."""
    lines = []
    for name in dict.fromkeys(name for row in rows for name, arm in arms_of(row).items() if arm["role"] == "arm"):
        found = [(row, arms_of(row)[name]) for row in rows if name in arms_of(row)]
        shares = [arm["share"] for row, arm in found if row["headline"] == 1 and arm["share"] is not None]
        closed = sum(share >= compare.GOAL for share in shares)
        gaps = f"closes {percent(compare.GOAL)} or more of {closed} of {len(shares)} gaps; "
        harmed = {sure: [_label(row) for row, arm in found if arm["outcome"] == sure] for sure in ("harms", "may harm")}
        harms = "; ".join(f"{sure} {', '.join(labels)}" for sure, labels in harmed.items() if labels)
        lines.append(f"**{name}** {gaps if _of(rows, 'oracle') else ''}{harms or 'harms nothing clearly'}")
    return lines


def as_json(rows: Sequence[Row], split: str, seeds: Sequence[Any]) -> dict[str, Any]:
    """Return everything as what JSON can hold: metric by metric, headlines or not, every column with its seeds."""
    return {
        "format": "cellduality-arms",
        "version": 1,
        "split": split,
        "seeds": list(seeds),
        "level": compare.LEVEL,
        "intervals": {"change": "Student's t over seeds, paired", "share": "Fieller's, over seeds"},
        "goal": compare.GOAL,
        "rows": [{**row, "columns": {n: own for n, own in row["columns"].items() if own["values"]}} for row in rows],
    }


def as_csv(rows: Sequence[Row]) -> str:
    """Return a line for every metric and column; what a column has not is empty."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, CSV_COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        section, _, metric = row["key"].rpartition("/")
        for name, own in row["columns"].items():
            if own["values"]:
                line = {**row, **own, "section": section, "metric": metric, "column": name, "seeds": len(own["values"])}
                for what in ("change", "share"):
                    line[f"{what}_low"], line[f"{what}_high"] = own.get(f"{what}_interval") or (None, None)
                writer.writerow({**line, "change": own.get("change_mean")})
    return stream.getvalue()


def save_plot(rows: Sequence[Row], *paths: Path) -> None:
    """Draw one panel a row into each of ``paths``: every seed faint, the mean with its standard deviation in front.

    Base models, baselines and real cells are left to the table: far off, they would press the arms together.
    """
    across = min(2, len(rows))
    down = math.ceil(len(rows) / across)
    names = [name for role in COLOURS for name in reversed(_of(rows, role))]  # from bottom to top
    with drawing(5.0 * across, (0.95 + 0.3 * len(names)) * down) as figure:
        panels = figure.subplots(down, across, squeeze=False).flatten()
        for place, row in enumerate(rows):
            _draw(panels[place], row, names, named=place % across == 0)
        for axes in panels[len(rows) :]:
            axes.set_axis_off()
        save_figure(figure, *paths)


def _draw(axes: Any, row: Row, names: Sequence[str], *, named: bool) -> None:
    shown = {name: row["columns"][name] for name in names}
    means = {column["role"]: column["mean"] for column in shown.values() if column["values"]}
    if "oracle" in means and row["gap"]:
        axes.axvspan(means["reference"], means["oracle"], color=COLOURS["oracle"], alpha=SHADE[row["gap"]], linewidth=0)
    axes.axvline(means["reference"], color=COLOURS["reference"], linewidth=0.8, linestyle=":")
    for height, own in enumerate(shown.values()):
        if not (values := own["values"]):
            continue
        colour, mean, deviation = COLOURS[own["role"]], own["mean"], own["deviation"]
        axes.plot(values, [height + 0.2] * len(values), "o", color=colour, alpha=0.35, markersize=4, markeredgewidth=0)
        if deviation is not None:
            axes.plot([mean - deviation, mean + deviation], [height, height], color=colour, linewidth=1.2)
        axes.plot(mean, height, "D", color=colour, markersize=6)
    axes.set_yticks(range(len(shown)), names if named else [""] * len(shown))
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_title(_label(row), fontsize=8, loc="left")
    axes.margins(x=0.12)
