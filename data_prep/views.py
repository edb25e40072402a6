"""What a run takes of its sources: ranked cells with their splits, labels and controls, and who asks of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.perturbations import CONTROL
from cellduality_plugin.tasks import DualTask
from data_prep.cells import (
    FEW_GENES,
    CellTable,
    expression_at_rank,
    rank_cells,
    rank_in_names_of,
    refuse_few_shared,
)
from data_prep.settings import PrepareSettings
from data_prep.sources import Source, asked_columns
from data_prep.splits import (
    OOD,
    SPLITS,
    PublishedSplit,
    choose_labelled,
    choose_some,
    pair_with_controls,
    small_classes,
    split_cells,
)

# Columns that the experimenter set: known of every cell. All others are annotations, known of labelled cells.
CONDITIONS = ("perturbation", "drug", "dose")
GROUPS = ("cell_type", "cell_line")  # what a cell has to share with its control, as far as it is known

ABSENT = "value to hold out that no cell has"
RARE_CLASS = "cell of a class with fewer than three cells"
NO_COUNTERPART = "cell of a type the training set does not have"
NO_VALUE = "cell without a value in a column that is needed"
UNPAIRED = "cell without an untreated cell of its type in its split (asked about by other tasks only)"


@dataclass(frozen=True)
class View:
    """The cells of one source."""

    name: str  # of the source: the first part of every cell's id
    tasks: tuple[DualTask, ...]  # the pairs that are asked about its cells
    cells: dict[str, Cell]  # by id, in alphabetical order
    splits: Mapping[str, str]  # of each cell; OOD for those held out, be it the whole set
    drops: dict[str, int]  # how many cells and genes were left out, by reason
    labelled: frozenset[str] = frozenset()  # the training cells that show their label
    controls: Mapping[str, str] = field(default_factory=dict)  # the untreated cell that a cell is paired with
    genes: tuple[str, ...] = ()  # all that any cell expresses
    held_out: tuple[str, ...] = ()  # the columns by whose values cells are held out
    expression: Mapping[str, Any] = field(default_factory=dict)  # of the training cells, at each rank

    def of(self, split: str) -> list[Cell]:
        return [cell for name, cell in self.cells.items() if self.splits[name] == split]

    def training(self, labelled: bool) -> list[Cell]:
        return [cell for cell in self.of(SPLITS[0]) if (cell.id in self.labelled) == labelled]

    def asks(self, task: DualTask, cell: Cell) -> bool:
        """Return whether ``task`` is asked about ``cell``.

        Of cells that are held out by a column it is not if an answer was not taught for it: if it is that column, or no
        other cell of the set has it. A condition that the question shows may be new.
        """
        if task not in self.tasks or ("control" in task.needs and not cell.control):
            return False
        if self.splits[cell.id] != OOD or not self.held_out:
            return True
        if {*self.held_out} & {*task.kinds, *(column for column in task.needs if column not in CONDITIONS)}:
            return False
        shown = {*CONDITIONS} & {*task.needs}
        return all(cell.value(kind) in self._taught[kind] for kind in task.kinds if kind not in shown)

    @cached_property
    def _taught(self) -> dict[str, set[str]]:
        return {kind: self.labels(kind) for task in self.tasks for kind in task.kinds}

    def labels(self, kind: str) -> set[str]:
        """Return the values of a label set that cells in a split have; empty if none of the tasks speaks of it.

        Of a set that is held out whole it is all values: a question lists what it asks for.
        """
        if not any(kind in task.kinds for task in self.tasks):
            return set()
        return {cell.value(kind) for name, cell in self.cells.items() if self.splits[name] != OOD or not self.held_out}


def read_views(settings: PrepareSettings, sources: Sequence[Source], tasks: Mapping[str, DualTask]) -> list[View]:
    """Return the view of each source that trains: read, ranked, split, cut to the chosen genes, and paired.

    The blocks of a source are passed over once; twice more where the most variable genes of the training cells are the
    vocabulary; and as far as is needed for the mean expression at each rank. A CellDualityError is raised if a column
    is missing that a task asks for, or the cells cannot be split or paired as the settings say.
    """
    tables = [source.read() for source in sources]
    views = [
        take(source, table, [tasks[name] for name in settings.tasks_of(source.settings)], settings)
        for source, table in zip(sources, tables, strict=True)
    ]
    training = [one for one in zip(views, tables, strict=True) if SPLITS[0] in one[0].splits.values()]
    if not training:
        what = f"no cell trains: {', '.join(view.name for view in views)} is held out whole"
        hint = "name a set that trains, too, or split it like any other with --split fractions"
        raise CellDualityError(what, code="nothing-trains", where="sources", hint=hint)
    refuse_few_shared({view.name: table.genes for view, table in training})
    genes = {gene for view, _ in training for gene in view.genes}
    if settings.n_genes is not None:
        variable = [table.variable_genes(settings.n_genes, _training(view, table)) for view, table in training]
        genes &= {gene for chosen in variable for gene in chosen}
    if settings.n_genes is not None or len(training) < len(views):
        views = [_with_genes(*one, frozenset(genes), settings) for one in zip(views, tables, strict=True)]
    return [
        replace(
            _paired(view, source.match, settings),
            expression=expression_at_rank(table, _training(view, table), frozenset(view.genes), settings.top_genes),
        )
        for view, source, table in zip(views, sources, tables, strict=True)
    ]


def _training(view: View, table: CellTable) -> NDArray[np.bool_]:
    """Return which cells of the table are training cells: no test cell has a say in what is fitted."""
    return np.array([view.splits.get(f"{view.name}/{barcode}") == SPLITS[0] for barcode in table.obs.index])


def take(
    source: Source,
    table: CellTable,
    tasks: Sequence[DualTask],
    settings: PrepareSettings,
    genes: frozenset[str] | None = None,
    types: Container[str] | None = None,
) -> View:
    """Return the view of a source, without pairs: of its own genes or ``genes``, of all its cells or of ``types``."""
    name, split, wanted = source.name, source.split, source.settings
    optional = GROUPS if any("control" in task.needs for task in tasks) else GROUPS[:1]
    needed = named_columns(table.obs, {*asked_columns(tasks), *source.match}, name, optional)
    columns = named_columns(table.obs, {*needed, *split.held_out}, name)
    strata = [column for column in needed if column in {"cell_type", *asked_columns(tasks)}]

    how: dict[str, Any] = {"source": name, "top": settings.top_genes, "min_genes": settings.min_genes}
    ranked, lost = (rank_cells(table, **how), {}) if genes is None else rank_in_names_of(genes, table, **how)
    drops = Counter({**table.drops, **lost, **ranked.drops})
    rows, known = ranked.rows, ranked.known(columns)

    def leave_out(why: str, cells: Collection[str]) -> None:
        for i in cells:
            drops[why] += 1
            del known[i]

    if types is not None:
        leave_out(NO_COUNTERPART, [i for i, values in known.items() if values["cell_type"] not in types])
    leave_out(NO_VALUE, [i for i, values in known.items() if not all(values[column] for column in needed)])
    refuse_told(tasks, known.values(), name)
    classes = {i: " / ".join(values[column] for column in strata) for i, values in known.items()}
    splits: Mapping[str, str] = split.assign([*known])  # of the whole set, whatever of it is taken
    if wanted.max_cells is not None:
        kept = {classes[i] for i, values in known.items() if values.get("perturbation") == CONTROL}
        rng = settings.stream("sample")
        few = settings.listed if types is None else 0  # of a foreign set every type that is shared counts
        sample = choose_some(classes, wanted.max_cells, rng, few=few, kept=kept)
        known = {i: values for i, values in known.items() if i in sample}
    held, absent = _held_out(known, split, asked_for=bool(wanted.held_out))
    drops.update(absent)
    inside = {i: classes[i] for i in sorted(known) if i not in held}
    if settings.small_classes == "drop" and split.rule == "fractions":  # other rules take no heed of classes
        rare = small_classes(inside.values())
        leave_out(RARE_CLASS, [i for i in inside if inside[i] in rare])
        inside = {i: inside[i] for i in inside if i in known}
    if split.rule == "fractions":
        splits = split_cells(inside, fractions=settings.fractions, rng=settings.stream("split"))
    cells = {i: known_by(Cell(i, ranked.genes(rows[i])), known[i]) for i in sorted(known)}
    splits = {i: OOD if i in held else splits[i] for i in cells}
    view = View(name, tuple(tasks), cells, splits, dict(drops), genes=ranked.expressed, held_out=tuple(split.held_out))
    return (
        view if split.rule == "whole" else _labelled(view, classes, wanted.n_labelled or settings.n_labelled, settings)
    )


def _labelled(view: View, classes: Mapping[str, str], count: int, settings: PrepareSettings) -> View:
    train = {cell.id: classes[cell.id] for cell in view.of(SPLITS[0])}
    return replace(view, labelled=choose_labelled(train, count, settings.stream("labels"), few=settings.listed))


def _held_out(
    known: Mapping[str, Mapping[str, str]], split: PublishedSplit, *, asked_for: bool
) -> tuple[set[str], dict[str, int]]:
    """Return (the cells that are held out by a column, how many values of it no cell has, by reason).

    A CellDualityError is raised if no cell has a value that was ``asked_for``, or every cell is held out.
    """
    held: set[str] = set()
    lacking: dict[str, int] = {}
    for column, wanted in split.held_out.items():
        at_hand = {values[column] for values in known.values()}
        out = split.held_values(column, at_hand)
        absent = sorted({*wanted} - {*out.values()})
        if absent and asked_for:
            some = ", ".join(sorted(at_hand - {""})[:10]) + (", ..." if len(at_hand) > 10 else "")
            what, hint = f"no cell has the {column} {absent[0]!r}", f"choose among {some}"
            raise CellDualityError(what, code="unknown-value", where=f"held_out.{column}", hint=hint)
        lacking |= {f"{ABSENT} ({column} {name})": 1 for name in absent}
        held |= {i for i, values in known.items() if values[column] in out}
    if held and len(held) == len(known):
        what, hint = "every cell is held out", f"hold out fewer values of {', '.join(split.held_out)}"
        raise CellDualityError(what, code="nothing-trains", where="held_out", hint=hint)
    return held, lacking


def _with_genes(view: View, table: CellTable, genes: frozenset[str], settings: PrepareSettings) -> View:
    """Return the view with sentences of ``genes`` alone; cells that are left with too few are left out."""
    how: dict[str, Any] = {"source": view.name, "top": settings.top_genes, "min_genes": settings.min_genes}
    ranked, lost = rank_in_names_of(genes, table, **how)
    rows, drops = ranked.rows, Counter({**view.drops, **lost})
    cells = {i: replace(cell, genes=ranked.genes(rows[i])) for i, cell in view.cells.items() if i in rows}
    drops += Counter({FEW_GENES: len(view.cells) - len(cells)})
    return replace(view, cells=cells, genes=ranked.expressed, drops=dict(drops))


def _paired(view: View, match: Sequence[str], settings: PrepareSettings) -> View:
    """Return the view with cells beside untreated ones of their split, :data:`GROUPS` and ``match``, if a task asks."""
    if not any("control" in task.needs for task in view.tasks):
        if match:
            what, hint = "no task shows a control that could be matched", "leave it out, or name the perturbations"
            raise CellDualityError(what, code="settings-clash", where="--match", hint=hint)
        return view
    done = {i: cell.value("perturbation") for i, cell in view.cells.items()}
    kinds = {
        i: " / ".join([*(cell.obs.get(column, "") for column in GROUPS), *map(cell.value, match)])
        for i, cell in view.cells.items()
    }
    stream = settings.stream("pairs")
    controls = pair_with_controls(done, {i: f"{view.splits[i]} / {kind}" for i, kind in kinds.items()}, stream)
    # What is held out by its treatment has no control beside it, and is held against those of the test cells.
    lone = {i for i in done if view.splits[i] == OOD and i not in controls and done[i] != CONTROL}
    test = {i for i in done if view.splits[i] == SPLITS[-1] and done[i] == CONTROL}
    if lone and test:
        again = pair_with_controls({i: done[i] for i in lone | test}, kinds, stream)
        controls |= {i: control for i, control in again.items() if i in lone}
    if all(done[i] == CONTROL for i in controls):
        what = f"no treated cell has an untreated one of its {', '.join([*GROUPS, *match])} and split"
        hint = "match fewer columns (--match), or bring cells that are treated and cells that are not of each"
        raise CellDualityError(what, code="no-control", where=f"source {view.name}", hint=hint)
    cells = dict(view.cells)
    for i, control in controls.items():
        cells[i] = replace(cells[i], control=cells[control].genes)
    lost = len(cells) - len(controls)
    drops = {**view.drops, UNPAIRED: lost} if lost else view.drops
    return replace(view, cells=cells, controls=controls, drops=drops)


def known_by(cell: Cell, values: Mapping[str, str]) -> Cell:
    """Return the cell with ``values`` by column as what is known of it: annotations, or conditions it was put under."""
    condition = {column: value for column, value in values.items() if column in CONDITIONS}
    return replace(cell, obs={c: v for c, v in values.items() if c not in condition}, condition=condition)


def refuse_told(tasks: Iterable[DualTask], known: Collection[Mapping[str, str]], name: str) -> None:
    """Raise if an answer follows from what the question shows besides the cell, which then need not be read."""
    for task in tasks:
        shown = [column for column in task.needs if column in CONDITIONS]
        if isinstance(task.answer, OneOf) and shown:
            told = {(*(values[column] for column in shown), values[task.answer.kind]) for values in known}
            if 1 < len(told) == len({each[:-1] for each in told}):
                what = f"each {' and '.join(shown)} has one {task.answer.kind}: {task.name} need not read the cell"
                hint = "leave out that task, or bring cells that answer one and the same in two ways"
                raise CellDualityError(what, code="told-by-question", where=f"source {name}", hint=hint)


def source_of(cell_id: str) -> str:
    """Return the name of the source in a cell's id."""
    return cell_id.partition("/")[0]


def named_columns(obs: Mapping[str, Any], wanted: Iterable[str], name: str, optional: Iterable[str] = ()) -> list[str]:
    """Return the ``wanted`` columns, of which none may lack, and ``optional`` ones that are there, sorted."""
    columns = {*wanted, *(set(optional) & set(obs))}
    if missing := sorted(columns - set(obs)):
        what = f"no column {missing[0]!r}, which is asked for; there is {', '.join(map(str, obs)) or 'none'}"
        hint = "choose other tasks for it, or name the column that holds it"
        raise CellDualityError(what, code="unknown-column", where=f"source {name}", hint=hint)
    return sorted(columns)
