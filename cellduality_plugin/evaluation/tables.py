"""The metrics as a table: for the terminal, and row by row for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

_TITLES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "coarse_accuracy": "shared-type accuracy",
    "coarse_macro_f1": "shared-type macro-F1",
    "dual_similarity": "dual similarity",
    "validity": "validity",
    "duplicates": "duplicate genes",
    "mmd": "MMD²",
    "mmd_within_types": "MMD² within types",
    "distinct": "distinct cells",
    "spread": "spread within types",
    "shift_correlation": "shift correlation",
    "shift_error": "shift error",
}
_ARROWS = {"higher": "↑", "lower": "↓", "like real cells": "≈"}


def section_title(key: str) -> str:
    """Return the name of a section as tables show it.

    Examples
    --------
    >>> section_title("drug_exposure_prediction"), section_title("perturbation_response_generation@ood")
    ('drug exposure prediction', 'perturbation response generation, held-out cell types')
    >>> section_title("cell_type_annotation@kidney_immune")
    'cell type annotation, kidney immune'
    """
    task, at, part = key.partition("@")
    kind = "held-out cell types" if part == "ood" else part.replace("_", " ")
    return task.replace("_", " ") + (f", {kind}" if at else "")


def title(key: str, better: str) -> str:
    """Return a metric's name with an arrow in the better direction.

    Examples
    --------
    >>> title("conditional_cell_generation/knn_agreement_10", "higher")
    'k-NN agreement (10) ↑'
    """
    name = key.rpartition("/")[2]
    if name.startswith("knn_agreement_"):
        name = f"k-NN agreement ({name.rpartition('_')[2]})"
    return f"{_TITLES.get(name, name)} {_ARROWS[better]}"


def written(value: float | None) -> str:
    """Return a value as tables show it: three decimals, four for the small ones, a dash for none.

    Examples
    --------
    >>> written(0.7712), written(0.00234), written(None)
    ('0.771', '0.0023', '–')
    """
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
    """Return the metrics that any column has, task by task, the headlines of a task first."""
    neighbours = [f"knn_agreement_{k}" for k in metrics["settings"]["neighbours"]]
    order = ["accuracy", "macro_f1", "shift_correlation", "shift_error", *neighbours, *_TITLES]
    keys = {key for column in metrics["columns"].values() for key in column["metrics"]}
    return sorted(keys, key=lambda key: (key.rpartition("/")[0], order.index(key.rpartition("/")[2])))


def table_rows(metrics: Mapping[str, Any]) -> list[tuple[str, str, dict[str, Mapping[str, Any]]]]:
    """Return (task, title, {column: metric}) of every row of the table, the headlines of a task first."""
    rows = []
    for key in ordered_keys(metrics):
        cells = {name: c["metrics"][key] for name, c in metrics["columns"].items() if key in c["metrics"]}
        rows.append((key.rpartition("/")[0], title(key, next(iter(cells.values()))["better"]), cells))
    return rows


def table(metrics: Mapping[str, Any]) -> Group:
    """Return a table a section of ``metrics`` (what :func:`evaluate` returns), to be printed with rich.

    A row is a metric, a column whatever was measured in that section: what stands in other sections alone would take
    room from the numbers.
    """
    sections: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for section, name, cells in table_rows(metrics):
        sections.setdefault(section, []).append((name, cells))
    columns = list(metrics["columns"])
    return Group(
        Text(f"{metrics['split']} split: ↑ higher is better, ↓ lower, ≈ as real cells\n", style="dim"),
        *(_section_table(section, rows, columns) for section, rows in sections.items()),
    )


def _section_table(section: str, rows: Sequence[tuple[str, Mapping[str, Any]]], columns: Sequence[str]) -> Table:
    measured = [column for column in columns if any(column in cells for _, cells in rows)]
    heading = Text(section_title(section), style="bold")
    shown = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
    shown.add_column("metric", width=22)  # three checkpoints with baselines and real cells fit into 80 characters
    for name in measured:
        shown.add_column(name.replace(" ", "\n"), justify="right")
    for name, cells in rows:
        shown.add_row(name, *(written(cells[column]["value"] if column in cells else None) for column in measured))
    return shown
