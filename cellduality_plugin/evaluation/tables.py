"""The metrics as a table: for the terminal, and row by row for the report; the best of a row, and who beats whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cellduality_plugin.evaluation.metrics.registry import ARROWS, BY_CONSTRUCTION, place, titled


def section_title(key: str) -> str:
    """Return the name of a section as tables show it.

    Examples
    --------
    >>> section_title("drug_exposure_prediction"), section_title("perturbation_response_generation@ood")
    ('drug exposure prediction', 'perturbation response generation, held-out cell types')
    >>> section_title("cell_type_annotation@kidney_immune")
    'cell type annotation, kidney immune'
    """
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
    """Return a difference as tables show it.

    Examples
    --------
    >>> signed(0.7712), signed(-0.00234), signed(0.0)
    ('+0.771', '-0.0023', '0.000')
    """
    return f"+{written(value)}" if value > 0 else written(value)


def ordered_keys(metrics: Mapping[str, Any]) -> list[str]:
    """Return the metrics that any column has, task by task, in the order of the registry."""
    neighbours = [f"knn_agreement_{k}" for k in metrics["settings"]["neighbours"]]

    def order(key: str) -> tuple[str, int, int, str]:
        section, _, name = key.rpartition("/")
        return section, place(name), neighbours.index(name) if name in neighbours else 0, name

    return sorted({key for column in metrics["columns"].values() for key in column["metrics"]}, key=order)


def cells_of(metrics: Mapping[str, Any], key: str) -> dict[str, Mapping[str, Any]]:
    """Return metric ``key`` of every column that has it."""
    return {name: own["metrics"][key] for name, own in metrics["columns"].items() if key in own["metrics"]}


def table_rows(metrics: Mapping[str, Any]) -> list[tuple[str, str, dict[str, Mapping[str, Any]]]]:
    """Return (task, title, {column: metric}) of every row of the table, the headlines of a task first."""
    rows = ((key, cells_of(metrics, key)) for key in ordered_keys(metrics))
    return [(key.rpartition("/")[0], title(key, next(iter(own.values()))["better"]), own) for key, own in rows]


def table(metrics: Mapping[str, Any]) -> Group:
    """Return a table a task of ``metrics`` (what :func:`evaluate` returns), to be printed with rich.

    A row is a metric, a column whatever was measured of that task. Below each metric stands the same of held-out kinds
    of cells and of external sets. The best of a row is marked, real cells aside, and a last line says where a baseline
    beats every checkpoint.
    """
    tasks: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {}
    for row in table_rows(metrics):
        tasks.setdefault(row[0].partition("@")[0], []).append(row)
    legend = f"{metrics['split']} split: ↑ higher is better, ↓ lower, ≈ as real cells; * best but for real cells\n"
    shown = (_task_table(task, side_by_side(rows), metrics) for task, rows in tasks.items())
    return Group(
        Text(legend, style="dim"),
        *(Padding(each, (0, 0, 1, 0)) for each in shown),
        Text(wins_line(baseline_wins(metrics)), style="dim"),
    )


def side_by_side(rows: Sequence[tuple[str, str, Mapping[str, Any]]]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return (title, cells) of one task's rows, each metric's of all its splits one below the other.

    A metric that only held-out kinds of cells or external sets have stands under a title without cells.

    Examples
    --------
    >>> [name for name, _ in side_by_side([("task", "a", {}), ("task", "b", {}), ("task@ood", "a", {})])]
    ['a', '  held-out types', 'b']
    """
    found: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for section, name, cells in rows:
        part = section.partition("@")[2]
        metric = found.setdefault(name, [(name, {})] if part else [])
        label = "  held-out types" if part == "ood" else "  " + part.replace("_", " ")
        metric.append((label if part else name, cells))
    return [row for metric in found.values() for row in metric]


def columns_of(metrics: Mapping[str, Any], kind: str) -> list[str]:
    """Return the columns of a kind: ``"checkpoint"``, ``"baseline"`` or ``"real"``."""
    return [name for name, column in metrics["columns"].items() if column.get("kind") == kind]


def real_column(metrics: Mapping[str, Any]) -> str:
    """Return the name of the column of real cells; empty if there is none."""
    return next(iter(columns_of(metrics, "real")), "")


def gain_of(before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
    """Return how much better the value of one metric became."""
    return float((-1 if after["better"] == "lower" else 1) * (after["value"] - before["value"]))


def best_columns(cells: Mapping[str, Mapping[str, Any]], real: str) -> frozenset[str]:
    """Return the columns with the best value of a row, real cells apart; several where they are equal.

    None where fewer than two columns have a value. ``cells`` holds the metric of each column; ``real`` is the column of
    real cells, which "like real cells" is compared with.
    """
    losses = _losses(cells, real)
    return frozenset(name for name, loss in losses.items() if len(losses) > 1 and loss == min(losses.values()))


def baseline_wins(metrics: Mapping[str, Any]) -> dict[str, bool]:
    """Return of each metric that baselines and checkpoints have whether a baseline beats every checkpoint.

    What a baseline has by construction does not count. A tie is no win.
    """
    real, won = real_column(metrics), {}
    for key in dict.fromkeys(key for column in metrics["columns"].values() for key in column["metrics"]):
        cells = cells_of(metrics, key)
        losses: dict[str, list[float]] = {"baseline": [], "checkpoint": []}
        for name, loss in _losses(cells, real).items():
            if (kind := metrics["columns"][name].get("kind")) in losses and cells[name].get("note") != BY_CONSTRUCTION:
                losses[kind].append(loss)
        if all(losses.values()):
            won[key] = min(losses["baseline"]) < min(losses["checkpoint"])
    return won


def _losses(cells: Mapping[str, Mapping[str, Any]], real: str) -> dict[str, float]:
    """Return how far each column is from the best that there could be, up to a constant; real cells are left out."""
    values = {name: cell["value"] for name, cell in cells.items() if cell["value"] is not None}
    better = next(iter(cells.values()))["better"] if cells else "higher"
    target = values.pop(real, None)
    if better == "like real cells":
        return {} if target is None else {name: abs(value - target) for name, value in values.items()}
    return {name: -value if better == "higher" else value for name, value in values.items()}


def wins_line(won: Mapping[str, bool]) -> str:
    """Return the line under the table: in how many rows a baseline beats every checkpoint, in all and by section."""
    if not any(won.values()):
        return f"No baseline beats every checkpoint in any of {len(won)} rows that both have." if won else ""
    sections: dict[str, list[bool]] = {}
    for key, own in won.items():
        sections.setdefault(key.rpartition("/")[0], []).append(own)
    each = "; ".join(f"{section_title(section)} {sum(own)} of {len(own)}" for section, own in sorted(sections.items()))
    return f"A baseline beats every checkpoint in {sum(won.values())} of {len(won)} rows that both have: {each}."


def _task_table(task: str, rows: Sequence[tuple[str, Mapping[str, Any]]], metrics: Mapping[str, Any]) -> Table:
    measured = [column for column in metrics["columns"] if any(column in cells for _, cells in rows)]
    heading = Text(section_title(task), style="bold")
    shown = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    shown.add_column("metric", no_wrap=True)  # three checkpoints with all baselines fit into 80 characters
    for name in measured:
        shown.add_column(name.replace(" ", "\n"), justify="right")
    for name, cells in rows:
        best = best_columns(cells, real_column(metrics))
        values = [(written(cells.get(column, {}).get("value")), column in best) for column in measured]
        # The best is marked with a star, too, for files know no bold.
        marked = [Text(value + "*", style="bold") if first else Text(value + "\u00a0") for value, first in values]
        shown.add_row(name, *(marked if cells else ()))
    return shown
