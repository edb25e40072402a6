"""The metrics as tables, for the terminal and row by row for the report; who beats whom, and the headlines in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cellduality_plugin.evaluation.metrics.registry import ARROWS, BY_CONSTRUCTION, place, sums_up, titled


def section_title(key: str) -> str:
    """Return the name of a section as tables show it.

    Examples
    --------
    >>> section_title("perturbation_response_generation@ood"), section_title("cell_type_annotation@kidney_immune")
    ('perturbation response generation, held-out cell types', 'cell type annotation, kidney immune')
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


@dataclass(frozen=True)
class Headline:
    """The headline metric of one section."""

    section: str
    metric: str
    before: Mapping[str, Any] | None  # of the checkpoint that the last one is compared with, if there is one
    after: Mapping[str, Any]  # of the last
    baseline: tuple[str, Mapping[str, Any]] | None  # of the best one, with its name
    real: Mapping[str, Any] | None  # of real cells

    @property
    def gain(self) -> float | None:
        """After minus before, positive where it got better."""
        return None if self.before is None else gain_of(self.before, self.after)

    @property
    def outside(self) -> bool:
        """Whether the change exceeds the half widths of both 95 % intervals, added as squares.

        That is the interval of a difference of independent measurements; of the same cells it is rather too wide.
        """
        if self.gain is None or self.before is None or not (self.before["interval"] and self.after["interval"]):
            return False
        halves = [(high - low) / 2 for low, high in (self.before["interval"], self.after["interval"])]
        return abs(self.gain) > math.hypot(*halves)

    @property
    def best(self) -> frozenset[str]:
        """Which of ``"before"``, ``"after"`` and ``"baseline"`` is best; several where they are equal."""
        rivals = {"before": self.before, "after": self.after, "baseline": self.baseline and self.baseline[1]}
        return best_columns({name: metric for name, metric in rivals.items() if metric}, "")

    @property
    def verdict(self) -> str:
        """What became of it, in a word or two."""
        if self.gain is None:
            return "–"
        if round(self.gain, 4) == 0:
            return "unchanged"
        return ("better" if self.gain > 0 else "worse") if self.outside else "within interval"

    @property
    def beaten(self) -> bool:
        """Whether the best baseline is ahead of ``after``."""
        return self.baseline is not None and gain_of(self.after, self.baseline[1]) > 0


def compared(metrics: Mapping[str, Any]) -> list[str]:
    """Return the last checkpoint of an evaluation, and before it the one it is compared with: SFT or the one before."""
    checkpoints = columns_of(metrics, "checkpoint")
    before = ["SFT"] if "SFT" in checkpoints[:-1] else checkpoints[-2:-1]
    return [*before, *checkpoints[-1:]]


def headlines(metrics: Mapping[str, Any], checkpoints: Sequence[str]) -> list[Headline]:
    """Return the headline of each section of ``metrics`` in which the last of ``checkpoints`` has one."""
    k, found = metrics["settings"]["neighbours"][0], []
    ours = [key for key in ordered_keys(metrics) if key in metrics["columns"][checkpoints[-1]]["metrics"]]
    for section in metrics["spaces"]:
        own = (key for key in ours if key.rpartition("/")[0] == section and sums_up(key.rpartition("/")[2], k))
        if (key := next(own, None)) is None:
            continue
        cells = {name: cell for name, cell in cells_of(metrics, key).items() if cell["value"] is not None}
        if (after := cells.get(checkpoints[-1])) is None:
            continue
        baselines = [(name, cells[name]) for name in columns_of(metrics, "baseline") if name in cells]
        best = max(baselines, key=lambda each: gain_of(after, each[1]), default=None)
        before = cells.get(checkpoints[-2]) if len(checkpoints) > 1 else None
        name = title(key, after["better"])
        found.append(Headline(section_title(section), name, before, after, best, cells.get(real_column(metrics))))
    return found


def sentences(found: Sequence[Headline], checkpoints: Sequence[str]) -> list[str]:
    """Return what was found: how often the last checkpoint is better than the one before, and where baselines are."""
    last, said = checkpoints[-1], []
    if compared := [each for each in found if each.gain is not None]:
        clear = {word: [_change(each) for each in compared if each.verdict == word] for word in ("better", "worse")}
        said.append(
            f"{last} is better than {checkpoints[-2]}, beyond the 95 % interval of the change, in "
            f"{len(clear['better'])} of {len(compared)} headline metric{'s' if len(compared) > 1 else ''}"
            f"{_listed(clear['better'])}; worse in {len(clear['worse'])}{_listed(clear['worse'])}."
        )
    if against := [each for each in found if each.baseline]:
        ahead: dict[str, list[str]] = {}
        for each in against:
            if each.baseline and each.beaten:
                ahead.setdefault(each.baseline[0], []).append(each.section)
        named = [f"{baseline} in {', '.join(sections)}" for baseline, sections in ahead.items()]
        lost = sum(map(len, ahead.values()))
        said.append(f"A baseline is ahead of {last} in {lost} of the {len(against)} that have one{_listed(named)}.")
    return said


def _listed(found: Sequence[str]) -> str:
    return f": {'; '.join(found)}" if found else ""


def _change(each: Headline) -> str:
    before = written(each.before["value"]) if each.before else ""
    return f"{each.section} ({each.metric.rpartition(' ')[0]} {before} to {written(each.after['value'])})"
