"""The metrics as a table: for the terminal, and row by row for the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

_TITLES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
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
    """
    task, _, part = key.partition("@")
    return task.replace("_", " ") + (", held-out cell types" if part else "")


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


def table(metrics: Mapping[str, Any]) -> Table:
    """Return the table of ``metrics`` (what :func:`evaluate` returns): a row a metric, a column a checkpoint."""
    caption = "↑ higher is better, ↓ lower, ≈ as real cells"
    shown = Table(title=f"{metrics['split']} split", caption=caption, box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
    shown.add_column("metric", width=22)  # three checkpoints fit into 80 characters
    for name in metrics["columns"]:
        shown.add_column(name.replace(" ", "\n"), justify="right")
    last = ""
    for task, name, cells in table_rows(metrics):
        if task != last:
            shown.add_section()
            shown.add_row(Text(section_title(task), style="bold"))
        last = task
        values = [cells[column]["value"] if column in cells else None for column in metrics["columns"]]
        shown.add_row(name, *map(written, values))
    return shown
