"""The numbers of the page: the metrics section by section, and confusion matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cellduality_plugin.evaluation.tables import best_columns, real_column, section_title, table_rows


def section_tables(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the table of each section of ``metrics``: only columns and rows that were measured in it.

    Of each its ``name``, the ``space`` of its distances, if any, ``columns``, ``rows`` (metric, cells, best columns;
    real cells are never the best), ``how`` each metric was measured, and the ``unmeasured`` ones by the reason why.
    """
    sections: dict[str, list[tuple[str, dict[str, Mapping[str, Any]]]]] = {}
    for section, name, cells in table_rows(metrics):
        sections.setdefault(section, []).append((name, cells))
    real, found = real_column(metrics), []
    for section, own in sections.items():
        rows, how, columns = [], {}, set[str]()
        unmeasured: dict[str, list[str]] = {}
        for name, cells in own:
            if all(cell["value"] is None for cell in cells.values()):
                why = next(iter(cells.values()))["note"].partition("; ")[0]
                unmeasured.setdefault(why, []).append(name.rpartition(" ")[0])
                continue
            rows.append((name, cells, best_columns(cells, real)))
            how[name] = how_measured(cells)
            columns |= cells.keys()
        found.append(
            {
                "name": section_title(section),
                "space": metrics["spaces"][section] if any(c["space"] for _, row in own for c in row.values()) else "",
                "columns": [name for name in metrics["columns"] if name in columns],
                "rows": rows,
                "how": how,
                "unmeasured": unmeasured,
            }
        )
    return found


def how_measured(cells: Mapping[str, Mapping[str, Any]]) -> str:
    """Return how one metric was measured, by its first column that has a value, and the n of each column.

    Examples
    --------
    >>> how_measured({"SFT": {"value": 0.5, "estimator": "share of cells", "n": 8, "bounds": [0.0, 1.0], "best": 1.0}})
    'Share of cells. Range 0 to 1, best 1. n = 8.'
    """
    valued = {name: cell for name, cell in cells.items() if cell["value"] is not None}
    first = next(iter(valued.values()))
    parts = [first[key] for key in ("estimator", "kernel", "note") if first.get(key)]
    if "bounds" in first:
        low, high = first["bounds"]
        reach = f"{low:g} and more" if high is None else f"{low:g} to {high:g}"
        parts.append(f"range {reach}, best {'as real cells' if first['best'] is None else format(first['best'], 'g')}")
    alike = len({cell["n"] for cell in valued.values()}) == 1
    counts = f"{first['n']}" if alike else ", ".join(f"{cell['n']} ({name})" for name, cell in valued.items())
    return " ".join([*(f"{part[:1].upper()}{part[1:]}." for part in parts), f"n = {counts}."])


def confusions(metrics: Mapping[str, Any], checkpoints: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Return {section: the matrix of each checkpoint}, without labels that neither gold nor answers hold.

    Of each matrix its ``column``, ``labels``, ``rows`` (gold label, how many cells have it, and of each answer its
    count and share of the gold label; the last counts unreadable answers), and (answers ``read``, all answers).
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for name in checkpoints:
        for key, matrix in metrics["columns"][name]["confusion"].items():
            labels, counts = matrix["labels"], np.array(matrix["counts"])
            golds, answered = counts.sum(axis=1), counts[:, :-1].sum(axis=0)
            kept = np.flatnonzero(golds + answered).tolist()
            names, rows = [labels[place] for place in kept], []
            for place in kept:
                shown = counts[place, [*kept, -1]].tolist()
                rows.append((labels[place], int(golds[place]), [(n, n / max(golds[place], 1)) for n in shown]))
            read = int(answered.sum()), int(counts.sum())
            found.setdefault(section_title(key), []).append(
                {"column": name, "labels": names, "rows": rows, "read": read}
            )
    return found
