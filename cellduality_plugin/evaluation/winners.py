"""The best column of every row, and the baselines that beat every checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

BY_CONSTRUCTION = "by construction"
"""The note of a value that says nothing of whoever has it: real genes, each once, are valid."""


class Win(NamedTuple):
    """A metric, ``section/metric``, in which the best baseline beats the best checkpoint, and what both have."""

    key: str
    baseline: str
    value: float
    best: float


def real_column(metrics: Mapping[str, Any]) -> str:
    """Return the name of the column of real cells; empty if there is none."""
    return next((name for name, column in metrics["columns"].items() if column.get("kind") == "real"), "")


def gain_of(before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
    """Return how much better the value of one metric became."""
    return float((-1 if after["better"] == "lower" else 1) * (after["value"] - before["value"]))


def best_columns(cells: Mapping[str, Mapping[str, Any]], real: str) -> frozenset[str]:
    """Return the columns with the best value of a row, real cells apart; several where they are equal.

    None where fewer than two columns have a value. ``cells`` holds the metric of each column; ``real`` is the column of
    real cells, which "like real cells" is compared with.

    Examples
    --------
    >>> row = {"SFT": 0.7, "majority": 0.3, "real cells": 0.9}
    >>> sorted(best_columns({name: {"value": value, "better": "higher"} for name, value in row.items()}, "real cells"))
    ['SFT']
    """
    losses = _losses(cells, real)
    return frozenset(name for name, loss in losses.items() if len(losses) > 1 and loss == min(losses.values()))


def baseline_wins(metrics: Mapping[str, Any]) -> tuple[list[Win], list[str]]:
    """Return the metrics in which a baseline beats every checkpoint, and the names of all that both have.

    ``metrics`` is what :func:`cellduality_plugin.evaluation.evaluate.evaluate` returns. What a baseline has by
    construction does not count. A tie is no win.
    """
    columns, real = metrics["columns"], real_column(metrics)
    wins, compared = [], []
    for key in dict.fromkeys(key for column in columns.values() for key in column["metrics"]):
        cells = {name: column["metrics"][key] for name, column in columns.items() if key in column["metrics"]}
        losses: dict[str, dict[str, float]] = {"baseline": {}, "checkpoint": {}}
        for name, loss in _losses(cells, real).items():
            if (kind := columns[name].get("kind")) in losses and cells[name].get("note") != BY_CONSTRUCTION:
                losses[kind][name] = loss
        if all(losses.values()):
            compared.append(key)
            baseline, checkpoint = (min(found, key=found.__getitem__) for found in losses.values())
            if losses["baseline"][baseline] < losses["checkpoint"][checkpoint]:
                wins.append(Win(key, baseline, cells[baseline]["value"], cells[checkpoint]["value"]))
    return wins, compared


def _losses(cells: Mapping[str, Mapping[str, Any]], real: str) -> dict[str, float]:
    """Return how far each column is from the best that there could be, up to a constant; real cells are left out."""
    values = {name: cell["value"] for name, cell in cells.items() if cell["value"] is not None}
    better = next(iter(cells.values()))["better"] if cells else "higher"
    target = values.pop(real, None)
    if better == "like real cells":
        return {} if target is None else {name: abs(value - target) for name, value in values.items()}
    return {name: -value if better == "higher" else value for name, value in values.items()}
