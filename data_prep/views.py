"""What a run takes of one source: its cells with their splits, their labels, their controls, and who asks of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.tasks import DualTask
from data_prep.cells import FEW_GENES, rank_cells
from data_prep.pairing import UNPAIRED, pair_with_controls
from data_prep.reading import CONDITIONS, Reading, SourceSettings, named_columns, spoken_columns
from data_prep.splits import choose_labelled, choose_some, small_classes, split_cells

OOD = "ood"
"""The split of the cells that are held out of all others."""

GROUPS = ("cell_type", "cell_line")
"""What a cell has to share with its control, as far as it is known."""

RARE_CLASS = "cell of a class with fewer than three cells"


@dataclass(frozen=True)
class Rules:
    """How every source of a run is cut: sentence lengths, split, labels, rare classes, seeds."""

    top: int
    min_genes: int
    fractions: tuple[float, float, float]
    n_labelled: int
    drop_small_classes: bool
    seed: int
    label_seed: int

    def streams(self) -> list[np.random.Generator]:
        """Return the generators of one source: split, labels, sample, pairs.

        They are the same for every source, so that its split does not hang on which others a run has.
        """
        children = np.random.SeedSequence(self.seed).spawn(8)
        children[1] = np.random.SeedSequence(self.label_seed).spawn(2)[1]
        return [np.random.default_rng(children[place]) for place in (0, 1, 6, 7)]


@dataclass(frozen=True)
class View:
    """The cells of one source.

    Parameters
    ----------
    name
        Of the source: the first part of every cell's id.
    tasks
        The pairs that are asked about its cells.
    cells
        By id, in alphabetical order.
    splits
        The split of each cell; :data:`OOD` for those held out.
    labelled
        The training cells that show their label.
    controls
        The id of the untreated cell that a cell is paired with.
    genes
        All genes that any cell expresses.
    held_out
        The columns by whose values cells are held out.
    drops
        How many cells and genes were left out, by reason.
    """

    name: str
    tasks: tuple[DualTask, ...]
    cells: dict[str, Cell]
    splits: Mapping[str, str]
    labelled: frozenset[str]
    controls: Mapping[str, str]
    genes: tuple[str, ...]
    held_out: tuple[str, ...]
    drops: dict[str, int]

    def of(self, split: str) -> list[Cell]:
        """Return the cells of a split."""
        return [cell for name, cell in self.cells.items() if self.splits[name] == split]

    def training(self, *, labelled: bool) -> list[Cell]:
        """Return the training cells that show their label, or those that do not."""
        return [cell for cell in self.of("train") if (cell.id in self.labelled) == labelled]

    def asks(self, task: DualTask, cell: Cell) -> bool:
        """Return whether ``task`` is asked about ``cell``.

        A task that speaks of a held-out column is not asked about held-out cells: it has never heard of their value.
        """
        if task not in self.tasks or ("control" in task.needs and not cell.control):
            return False
        return self.splits[cell.id] != OOD or not set(self.held_out) & {*task.kinds, *task.needs}

    def labels(self, kind: str) -> set[str]:
        """Return the values of a label set that cells in a split have; empty if none of the tasks speaks of it."""
        if not any(kind in task.kinds for task in self.tasks):
            return set()
        return {cell.value(kind) for name, cell in self.cells.items() if self.splits[name] != OOD}


def read_view(name: str, reading: Reading, tasks: Sequence[DualTask], settings: SourceSettings, rules: Rules) -> View:
    """Return the view of a source, with all the genes its cells express.

    Raises
    ------
    CellDualityError
        If a column is missing that a task asks for, or the cells cannot be split as the rules say.
    """
    split_stream, label_stream, sample_stream, _ = rules.streams()
    spoken = spoken_columns(tasks)
    paired = any("control" in task.needs for task in tasks)
    columns = named_columns(reading.obs, {*spoken, *settings.held_out}, name, optional=GROUPS if paired else GROUPS[:1])
    strata = [column for column in columns if column in {"cell_type", *spoken}]

    ranked = rank_cells(reading.matrix, source=name, top=rules.top, min_genes=rules.min_genes)
    drops = Counter({**reading.drops, **ranked.drops})
    table = {column: ranked.obs[column].astype(str).to_list() for column in columns}
    ids = [f"{name}/{barcode}" for barcode in ranked.obs.index]
    known = {place: {column: table[column][place] for column in columns} for place in range(len(ids))}
    for place in list(known):
        if "" in known[place].values():
            drops["cell without a value in a column that is needed"] += 1
            del known[place]
    classes = {ids[place]: " / ".join(values[column] for column in strata) for place, values in known.items()}
    if settings.max_cells is not None:
        sample = choose_some(classes, settings.max_cells, sample_stream)
        known = {place: values for place, values in known.items() if ids[place] in sample}
    cells = {ids[place]: known_by(ranked.cell(place), values) for place, values in known.items()}
    held = _held_out(cells.values(), settings)
    if rules.drop_small_classes and (rare := small_classes(classes[i] for i in cells if i not in held)):
        drops[RARE_CLASS] = sum(rare.values())
        cells = {i: cell for i, cell in cells.items() if i in held or classes[i] not in rare}
    cells = dict(sorted(cells.items()))

    inside = {i: classes[i] for i in cells if i not in held}
    splits: dict[str, str] = {**split_cells(inside, fractions=rules.fractions, rng=split_stream)}
    train = {i: inside[i] for i in inside if splits[i] == "train"}
    count = rules.n_labelled if settings.n_labelled is None else settings.n_labelled
    labelled = choose_labelled(train, count, label_stream)
    splits.update(dict.fromkeys(held, OOD))
    return View(
        name, tuple(tasks), cells, splits, labelled, {}, ranked.expressed, tuple(settings.held_out), dict(drops)
    )


def known_by(cell: Cell, values: Mapping[str, str]) -> Cell:
    """Return the cell with ``values`` by column as what is known of it: annotations, or conditions it was put under."""
    condition = {column: value for column, value in values.items() if column in CONDITIONS}
    return replace(cell, obs={c: v for c, v in values.items() if c not in condition}, condition=condition)


def _held_out(cells: Iterable[Cell], settings: SourceSettings) -> frozenset[str]:
    """Return the ids of the cells that no split may hold."""
    found: set[str] = set()
    for column, values in settings.held_out.items():
        at_hand = {cell.id: cell.value(column) for cell in cells}
        unknown = sorted(set(values) - set(at_hand.values()))
        if unknown:
            raise CellDualityError(
                f"no cell has the {column} {unknown[0]!r}",
                where=f"held_out.{column}",
                mend=f"choose among {', '.join(sorted(set(at_hand.values())))}",
            )
        found |= {i for i, value in at_hand.items() if value in values}
    return frozenset(found)


def variable_genes(view: View, reading: Reading, count: int) -> list[str]:
    """Return the most variable genes among the training cells; see :meth:`data_prep.reading.Reading.variable_genes`."""
    train = np.array([view.splits.get(f"{view.name}/{barcode}") == "train" for barcode in reading.obs.index])
    return [gene for gene in reading.variable_genes(count, train) if gene in set(view.genes)]


def with_genes(view: View, reading: Reading, genes: frozenset[str], rules: Rules) -> View:
    """Return the view with sentences of ``genes`` alone; cells that are left with too few are left out."""
    ranked = rank_cells(reading.only(genes).matrix, source=view.name, top=rules.top, min_genes=rules.min_genes)
    places = {f"{view.name}/{barcode}": place for place, barcode in enumerate(ranked.obs.index)}
    cells = {i: replace(c, genes=ranked.cell(places[i]).genes) for i, c in view.cells.items() if i in places}
    lost = len(view.cells) - len(cells)
    drops = {**view.drops, FEW_GENES: view.drops.get(FEW_GENES, 0) + lost} if lost else view.drops
    return replace(view, cells=cells, genes=ranked.expressed, drops=drops)


def with_controls(view: View, rules: Rules) -> View:
    """Return the view with every cell beside an untreated one of its split and group, if a task asks for it."""
    if not any("control" in task.needs for task in view.tasks):
        return view
    groups = {
        i: " / ".join([view.splits[i], *(cell.obs.get(column, "") for column in GROUPS)])
        for i, cell in view.cells.items()
    }
    perturbations = {i: cell.value("perturbation") for i, cell in view.cells.items()}
    controls = pair_with_controls(perturbations, groups, rules.streams()[3])
    cells = {
        i: replace(cell, control=view.cells[controls[i]].genes) if i in controls else cell
        for i, cell in view.cells.items()
    }
    lost = len(cells) - len(controls)
    return replace(view, cells=cells, controls=controls, drops={**view.drops, UNPAIRED: lost} if lost else view.drops)
