"""The metrics as tables, for the terminal and row by row for the report; who beats whom, and the headlines in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from rich import box
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cellduality_plugin.evaluation.metrics.registry import ARROWS, BY_CONSTRUCTION, place, sums_up, titled

Cells: TypeAlias = Mapping[str, Mapping[str, Any]]  # one metric of every column that has it
REAL = "real cells"  # the column of real cells, the ceiling


def section_title(key: str) -> str:
    """Return the name of a section as tables show it, such as ``cell type annotation, held-out cell types``."""
    task, at, part = key.replace("_", " ").partition("@")
    return f"{task}, {'held-out cell types' if part == 'ood' else part}" if at else task


def title(key: str, better: str) -> str:
    """Return a metric's name with an arrow in the better direction."""
    return f"{titled(key.rpartition('/')[2])} {ARROWS[better]}"


def written(value: float | None) -> str:
    """Return a value as tables show it: three decimals, four for the small ones, a dash for none."""
    if value is None:
        return "–"
    return f"{value:.4f}" if 0 < abs(value) < 0.05 else f"{value:.3f}"


def signed(value: float) -> str:
    """Return a difference as tables show it, such as ``+0.771``."""
    return f"+{written(value)}" if value > 0 else written(value)


def markdown(*rows: Sequence[str], right: bool = False) -> str:
    """Return a Markdown table, aligned for the terminal, the heading first; all but the first column to the right?"""
    lines = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    aligned = [[row[0].ljust(widths[0]), *map(str.rjust if right else str.ljust, row[1:], widths[1:])] for row in lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in aligned)


def ordered_keys(metrics: Mapping[str, Any]) -> list[str]:
    """Return the metrics that any column has, task by task, in the order of the registry."""
    neighbours = [f"knn_agreement_{k}" for k in metrics["settings"]["neighbours"]]

    def order(key: str) -> tuple[str, int, int, str]:
        section, _, name = key.rpartition("/")
        return section, place(name), neighbours.index(name) if name in neighbours else 0, name

    return sorted({key for column in metrics["columns"].values() for key in column["metrics"]}, key=order)


def cells_of(metrics: Mapping[str, Any], key: str) -> Cells:
    """Return metric ``key`` of every column that has it."""
    return {name: own["metrics"][key] for name, own in metrics["columns"].items() if key in own["metrics"]}


def table_rows(metrics: Mapping[str, Any]) -> list[tuple[str, str, Cells]]:
    """Return (section, title, cells) of every row of the table, the headlines of a task first."""
    rows = ((key, cells_of(metrics, key)) for key in ordered_keys(metrics))
    return [(key.rpartition("/")[0], title(key, next(iter(own.values()))["better"]), own) for key, own in rows]


def table(metrics: Mapping[str, Any]) -> Group:
    """Return a table a task of ``metrics`` (what :func:`evaluate` returns), to be printed with rich.

    Below each metric stands the same of held-out kinds of cells and of external sets; the last line is the wins line.
    """
    tasks: dict[str, dict[str, list[tuple[str, Cells]]]] = {}
    for section, name, cells in table_rows(metrics):
        task, _, part = section.partition("@")
        label = "  held-out types" if part == "ood" else f"  {part}".replace("_", " ")
        # What only held-out kinds of cells or external sets have stands under a title without cells.
        metric = tasks.setdefault(task, {}).setdefault(name, [(name, {})] if part else [])
        metric.append((label if part else name, cells))
    legend = f"{metrics['split']} split: ↑ higher is better, ↓ lower, ≈ as real cells; * best but for real cells\n"
    parts: list[Text | Padding] = [Text(legend, style="dim")]
    for task, named in tasks.items():
        rows, heading = [row for own in named.values() for row in own], Text(section_title(task), style="bold")
        measured = [column for column in metrics["columns"] if any(column in cells for _, cells in rows)]
        shown = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, padding=0, show_edge=False)
        shown.add_column("metric", no_wrap=True)  # three checkpoints with all baselines fit into 80 characters
        for column in measured:
            shown.add_column(column.replace(" ", "\n"), justify="right")
        for name, cells in rows:
            best, marked = best_columns(cells), []
            for column in measured if cells else ():
                value = written(cells.get(column, {}).get("value"))  # the best has a star, too, for files know no bold
                marked.append(Text(f"{value}*", style="bold") if column in best else Text(f"{value}\u00a0"))
            shown.add_row(name, *marked)
        parts.append(Padding(shown, (0, 0, 1, 0)))
    return Group(*parts, Text(wins_line(metrics), style="dim"))


def columns_of(metrics: Mapping[str, Any], kind: str) -> list[str]:
    """Return the columns of a kind: ``"checkpoint"`` or ``"baseline"``."""
    return [name for name, column in metrics["columns"].items() if column["kind"] == kind]


def best_columns(cells: Cells) -> frozenset[str]:
    """Return the columns with the best value of a row, of two or more; real cells are none of them."""
    losses = _losses(cells)
    return frozenset(name for name, loss in losses.items() if len(losses) > 1 and loss == min(losses.values()))


def _losses(cells: Cells) -> dict[str, float]:
    """Return how far each column is from the best that there could be, up to a constant; real cells are left out."""
    values = {name: cell["value"] for name, cell in cells.items() if cell["value"] is not None}
    better = next(iter(cells.values()))["better"] if cells else "higher"
    target = values.pop(REAL, None)
    if better == "like real cells":
        return {} if target is None else {name: abs(value - target) for name, value in values.items()}
    return {name: -value if better == "higher" else value for name, value in values.items()}


def wins_line(metrics: Mapping[str, Any]) -> str:
    """Return in how many rows that both have a baseline beats every checkpoint, in all and by section.

    What a baseline has by construction does not count, and a tie is no win.
    """
    won: dict[str, list[bool]] = {}
    for key in ordered_keys(metrics):
        cells, losses = cells_of(metrics, key), {kind: list[float]() for kind in ("baseline", "checkpoint")}
        for name, loss in _losses(cells).items():
            if cells[name].get("note") != BY_CONSTRUCTION:
                losses[metrics["columns"][name]["kind"]].append(loss)
        if all(losses.values()):
            won.setdefault(key.rpartition("/")[0], []).append(min(losses["baseline"]) < min(losses["checkpoint"]))
    wins, rows = sum(map(sum, won.values())), sum(map(len, won.values()))
    if not wins:
        return f"No baseline beats every checkpoint in any of {rows} rows that both have." if won else ""
    each = "; ".join(f"{section_title(section)} {sum(own)} of {len(own)}" for section, own in sorted(won.items()))
    return f"A baseline beats every checkpoint in {wins} of {rows} rows that both have: {each}."


def compared(metrics: Mapping[str, Any]) -> list[str]:
    """Return the last checkpoint of an evaluation, and before it the one it is compared with: SFT or the one before."""
    checkpoints = columns_of(metrics, "checkpoint")
    before = ["SFT"] if "SFT" in checkpoints[:-1] else checkpoints[-2:-1]
    return [*before, *checkpoints[-1:]]


def headlines(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the headline of each section of ``metrics`` in which the last checkpoint has one.

    ``before`` is that of the checkpoint that it is :func:`compared` with (None without), ``after`` its own;
    ``baseline`` (name, metric) is the best one, and has it ``beaten`` the last? The rest is of :func:`_change`.
    """
    k, found = metrics["settings"]["neighbours"][0], []
    *earlier, last = compared(metrics) or [""]
    ours = [key for key in ordered_keys(metrics) if last and key in metrics["columns"][last]["metrics"]]
    for section in metrics["spaces"]:
        own = (key for key in ours if key.rpartition("/")[0] == section and sums_up(key.rpartition("/")[2], k))
        key = next(own, "")
        cells = {name: cell for name, cell in cells_of(metrics, key).items() if cell["value"] is not None}
        if (after := cells.get(last)) is None:
            continue
        baselines = [(name, cells[name]) for name in columns_of(metrics, "baseline") if name in cells]
        baseline = max(baselines, key=lambda each: _gain(after, each[1]), default=None)
        rivals = {"before": cells.get("".join(earlier)), "after": after, "baseline": baseline and baseline[1]}
        found.append(
            {
                "section": section_title(section), "metric": title(key, after["better"]), **rivals,
                "baseline": baseline, "real": cells.get(REAL), **_change(rivals["before"], after),
                "best": best_columns({name: metric for name, metric in rivals.items() if metric}),
                "beaten": baseline is not None and _gain(after, baseline[1]) > 0,
            }
        )  # fmt: skip
    return found


def _gain(before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
    return float((-1 if after["better"] == "lower" else 1) * (after["value"] - before["value"]))


def _change(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> dict[str, Any]:
    """Return the gain of a metric, and whether it exceeds the half widths of both 95 % intervals, added as squares."""
    if before is None:
        return {"gain": None, "outside": False, "verdict": "–"}
    gain, intervals, verdict = _gain(before, after), [before["interval"], after["interval"]], "within interval"
    outside = all(intervals) and abs(gain) > math.hypot(*((high - low) / 2 for low, high in intervals))
    if round(gain, 4) == 0:
        verdict = "unchanged"
    elif outside:
        verdict = "better" if gain > 0 else "worse"
    return {"gain": gain, "outside": outside, "verdict": verdict}


def sentences(found: Sequence[Mapping[str, Any]], checkpoints: Sequence[str]) -> list[str]:
    """Return what was found: how often the last checkpoint is better than the one before, and where baselines are."""
    last, said = checkpoints[-1], []
    if changed := [each for each in found if each["gain"] is not None]:
        told: dict[str, list[str]] = {"better": [], "worse": []}
        for each in changed:
            values = f"{written(each['before']['value'])} to {written(each['after']['value'])}"
            told.setdefault(each["verdict"], []).append(
                f"{each['section']} ({each['metric'].rpartition(' ')[0]} {values})"
            )
        said.append(
            f"{last} is better than {checkpoints[-2]}, beyond the 95 % interval of the change, in "
            f"{len(told['better'])} of {len(changed)} headline metric{'s' if len(changed) > 1 else ''}"
            f"{_listed(told['better'])}; worse in {len(told['worse'])}{_listed(told['worse'])}."
        )
    if against := [each for each in found if each["baseline"]]:
        ahead: dict[str, list[str]] = {}
        for each in against:
            if each["beaten"]:
                ahead.setdefault(each["baseline"][0], []).append(each["section"])
        named, lost = [f"{name} in {', '.join(own)}" for name, own in ahead.items()], sum(map(len, ahead.values()))
        said.append(f"A baseline is ahead of {last} in {lost} of the {len(against)} that have one{_listed(named)}.")
    return said


def _listed(found: Sequence[str]) -> str:
    return f": {'; '.join(found)}" if found else ""
