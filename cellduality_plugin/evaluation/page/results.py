"""The numbers of the page: the metrics section by section, and confusion matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cellduality_plugin.evaluation.tables import section_title, table_rows
from cellduality_plugin.evaluation.winners import best_columns, real_column


@dataclass(frozen=True)
class SectionTable:
    """The metrics of one section: only columns and rows that were measured in it.

    Parameters
    ----------
    space
        Where its distances were taken; empty if there are none.
    rows
        Metric, cells, and the best columns. Real cells are no contestant: they are never the best.
    how
        How each metric was measured.
    unmeasured
        The metrics that no column has, by the reason why.
    """

    name: str
    space: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Mapping[str, Any], frozenset[str]]]
    how: Mapping[str, str]
    unmeasured: Mapping[str, Sequence[str]]


def section_tables(metrics: Mapping[str, Any]) -> list[SectionTable]:
    """Return the table of each section of ``metrics``."""
    rows: dict[str, list[tuple[str, dict[str, Mapping[str, Any]]]]] = {}
    for section, name, cells in table_rows(metrics):
        rows.setdefault(section, []).append((name, cells))
    real, found = real_column(metrics), []
    for section, own in rows.items():
        measured, unmeasured = [], dict[str, list[str]]()
        for name, cells in own:
            if any(cell["value"] is not None for cell in cells.values()):
                measured.append((name, cells))
            else:
                why = next(iter(cells.values()))["note"].partition("; ")[0]
                unmeasured.setdefault(why, []).append(name.rpartition(" ")[0])
        found.append(
            SectionTable(
                section_title(section),
                metrics["spaces"][section] if any(c["space"] for _, cells in own for c in cells.values()) else "",
                [name for name in metrics["columns"] if any(name in cells for _, cells in measured)],
                [(name, cells, best_columns(cells, real)) for name, cells in measured],
                {name: how_measured(cells) for name, cells in measured},
                unmeasured,
            )
        )
    return found


def how_measured(cells: Mapping[str, Mapping[str, Any]]) -> str:
    """Return how one metric was measured, as its first column that has a value tells, and the n of each column.

    Examples
    --------
    >>> how_measured({"SFT": {"value": 0.5, "estimator": "share of cells", "n": 8, "bounds": [0.0, 1.0], "best": 1.0}})
    'Share of cells. Range 0 to 1, best 1. n = 8.'
    """
    told = {name: cell for name, cell in cells.items() if cell["value"] is not None}
    first = next(iter(told.values()))
    parts = [first[key] for key in ("estimator", "kernel", "note") if first.get(key)]
    if "bounds" in first:
        low, high = first["bounds"]
        reach = f"{low:g} and more" if high is None else f"{low:g} to {high:g}"
        parts.append(f"range {reach}, best {'as real cells' if first['best'] is None else format(first['best'], 'g')}")
    alike = len({cell["n"] for cell in told.values()}) == 1
    counts = f"{first['n']}" if alike else ", ".join(f"{cell['n']} ({name})" for name, cell in told.items())
    return " ".join([*(f"{part[:1].upper()}{part[1:]}." for part in parts), f"n = {counts}."])


@dataclass(frozen=True)
class Confusion:
    """Gold labels x answers of one checkpoint; the last column counts answers that could not be read.

    Parameters
    ----------
    rows
        Gold label, how many cells have it, and of each answer (count, share of the gold label).
    read
        How many answers could be read, of how many.
    """

    column: str
    labels: Sequence[str]
    rows: Sequence[tuple[str, int, Sequence[tuple[int, float]]]]
    read: tuple[int, int]


def confusions(metrics: Mapping[str, Any], checkpoints: Sequence[str]) -> dict[str, list[Confusion]]:
    """Return {section: the matrix of each checkpoint}, without labels that no cell has and nobody answers."""
    found: dict[str, list[Confusion]] = {}
    for name in checkpoints:
        for key, matrix in metrics["columns"][name]["confusion"].items():
            found.setdefault(section_title(key), []).append(_confusion(name, matrix["labels"], matrix["counts"]))
    return found


def _confusion(name: str, labels: Sequence[str], counts: Sequence[Sequence[int]]) -> Confusion:
    answered = [sum(row[place] for row in counts) for place in range(len(labels))]
    kept = [place for place, row in enumerate(counts) if answered[place] or sum(row)]
    rows = []
    for place in kept:
        total = sum(counts[place])
        shown = [counts[place][column] for column in (*kept, len(labels))]
        rows.append((labels[place], total, [(count, count / max(total, 1)) for count in shown]))
    return Confusion(name, [labels[place] for place in kept], rows, (sum(answered), sum(map(sum, counts))))
