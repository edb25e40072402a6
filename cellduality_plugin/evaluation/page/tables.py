"""Tables of the page: the metrics section by section, and confusion matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cellduality_plugin.evaluation.tables import section_title, table_rows


@dataclass(frozen=True)
class SectionTable:
    """The metrics of one section: only columns that were measured in it, and of each row the best columns.

    Real cells are no contestant: they are never the best.
    """

    name: str
    space: str
    """Where its distances were taken; empty if there are none."""
    columns: Sequence[str]
    rows: Sequence[tuple[str, Mapping[str, Any], frozenset[str]]]


def section_tables(metrics: Mapping[str, Any]) -> list[SectionTable]:
    """Return the table of each section of ``metrics``."""
    rows: dict[str, list[tuple[str, dict[str, Mapping[str, Any]]]]] = {}
    for section, name, cells in table_rows(metrics):
        rows.setdefault(section, []).append((name, cells))
    contestants = {name for name, column in metrics["columns"].items() if column["kind"] != "real"}
    return [
        SectionTable(
            section_title(section),
            metrics["spaces"][section] if any(cell["space"] for _, cells in own for cell in cells.values()) else "",
            [name for name in metrics["columns"] if any(name in cells for _, cells in own)],
            [(name, cells, best(cells, contestants)) for name, cells in own],
        )
        for section, own in rows.items()
    ]


def best(cells: Mapping[str, Mapping[str, Any]], contestants: set[str]) -> frozenset[str]:
    """Return which columns have the best value of a row; none where nothing is better than another.

    Examples
    --------
    >>> sorted(best({"SFT": {"value": 0.5, "better": "lower"}, "GRPO": {"value": 0.7, "better": "lower"}}, {"SFT"}))
    ['SFT']
    """
    values = {name: cell["value"] for name, cell in cells.items() if name in contestants and cell["value"] is not None}
    better = next(iter(cells.values()))["better"]
    if not values or better not in ("higher", "lower"):
        return frozenset()
    top = max(values.values()) if better == "higher" else min(values.values())
    return frozenset(name for name, value in values.items() if value == top)


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
    kept = [place for place in range(len(labels)) if answered[place] or sum(counts[place])]
    rows = []
    for place in kept:
        total = sum(counts[place])
        shown = [counts[place][column] for column in (*kept, len(labels))]
        rows.append((labels[place], total, [(count, count / max(total, 1)) for count in shown]))
    every = sum(map(sum, counts))
    return Confusion(name, [labels[place] for place in kept], rows, (sum(answered), every))
