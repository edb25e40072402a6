"""Sets no cell of which trains: asked with the labels of the training sets, scored by the types that both share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import TypeAlias

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.tasks import DualTask
from data_prep.cells import rank_cells
from data_prep.reading import Located, Reading, named_columns, spoken_columns
from data_prep.registry import DATASETS
from data_prep.settings import PrepareSettings
from data_prep.splits import choose_some
from data_prep.views import OOD, Rules, View, known_by

NO_COUNTERPART = "cell of a type the training set does not have"

KIND = "cell_type"
"""The label set whose labels have coarser names."""

CoarseTypes: TypeAlias = dict[str, dict[str, dict[str, str]]]
"""``{"training": {set: {label: shared type}}, "foreign": {...}}``; labels without a shared type are not there."""


def names_types(task: DualTask) -> bool:
    """Return whether the pair's answer is a cell type: such pairs are asked about foreign cells.

    Examples
    --------
    >>> from cellduality_plugin.tasks import TASKS
    >>> [name for name, task in TASKS.items() if names_types(task)]
    ['cell_type_annotation']
    """
    return isinstance(task.answer, OneOf) and task.answer.kind == KIND


def shareable(name: str) -> dict[str, str]:
    """Return the shared type of each label of a set that has one; labels without a counterpart are left out.

    Raises
    ------
    CellDualityError
        If the registry knows of no shared type in that set.

    Examples
    --------
    >>> shareable("kidney_immune")["MNPa(mono)"], "Mast cell" in shareable("kidney_immune")
    ('Monocyte', False)
    """
    types = DATASETS[name].coarse_types if name in DATASETS else {}
    shared = {label: coarse for label, coarse in types.items() if coarse}
    if not shared:
        known = ", ".join(sorted(name for name, dataset in DATASETS.items() if any(dataset.coarse_types.values())))
        raise CellDualityError(
            f"no cell type of {name} is known to be shared with other sets",
            where="foreign",
            mend=f"sets that are known to share some are {known}",
        )
    return shared


def coarse_types(views: Sequence[View], foreign: Iterable[str]) -> CoarseTypes:
    """Return the shared type of every label that both a set that trains and a foreign one know of.

    Parameters
    ----------
    views
        The sets that train; those whose types no pair speaks of have no say.
    foreign
        The names of the foreign sets. Their labels without a counterpart among the training labels are left out.

    Raises
    ------
    CellDualityError
        If no shared type of a set, or of a label that is trained on, is known.
    """
    training = {view.name: _of_labels(view) for view in views if view.labels(KIND)}
    taught = {coarse for types in training.values() for coarse in types.values()}
    others = {name: {label: c for label, c in shareable(name).items() if c in taught} for name in foreign}
    return {"training": training, "foreign": others}


def _of_labels(view: View) -> dict[str, str]:
    shared = shareable(view.name)
    strangers = sorted(view.labels(KIND) - DATASETS[view.name].coarse_types.keys())
    if strangers:  # another column than the published labels
        raise CellDualityError(
            f"of the label {strangers[0]!r} of {view.name} no shared type is known",
            where="foreign",
            mend="leave --label-column out, or --foreign",
        )
    return {label: coarse for label, coarse in shared.items() if label in view.labels(KIND)}


def read_foreign(
    settings: PrepareSettings,
    found: Sequence[Located],
    tasks: Iterable[DualTask],
    views: Sequence[View],
    genes: frozenset[str],
) -> tuple[list[View], CoarseTypes]:
    """Return (the views of the foreign sets, the types they share with those that train); nothing without such sets.

    Parameters
    ----------
    settings
        Of the run.
    found
        The foreign sets, in the order of the settings.
    tasks
        The pairs of the run.
    views
        The sets that train.
    genes
        Their vocabulary.

    Raises
    ------
    CellDualityError
        If no pair names types, no shared types are known, or no cell of a set can be asked about.
    """
    if not found:
        return [], {}
    asked = [task for task in tasks if names_types(task)]
    if not asked:
        raise CellDualityError(
            "no task of this run names cell types", where="foreign", mend="add --task cell_type_annotation"
        )
    types, rules = coarse_types(views, [source.name for source in found]), settings.rules()
    others = []
    for source, wanted in zip(found, settings.foreign, strict=True):
        reading, labels = source.read(), types["foreign"][source.name]
        others.append(foreign_view(source.name, reading, asked, rules, wanted.max_cells, genes=genes, labels=labels))
    return others, types


def foreign_view(
    name: str,
    reading: Reading,
    tasks: Sequence[DualTask],
    rules: Rules,
    max_cells: int | None = None,
    *,
    genes: frozenset[str],
    labels: Collection[str],
) -> View:
    """Return the view of a foreign set: every cell out of distribution, with sentences of ``genes`` alone.

    Parameters
    ----------
    name, reading, rules
        The set and how it is cut.
    tasks
        The pairs that name types.
    max_cells
        Take a sample of this many of the cells that are left, in proportion by type; None: all.
    genes
        The vocabulary of the sets that train.
    labels
        The labels that have a counterpart; cells of others are left out and counted.

    Raises
    ------
    CellDualityError
        If a column is missing that a task asks for, or no cell is left.
    """
    if genes.isdisjoint(reading.genes):
        raise CellDualityError(
            "none of its genes is in the vocabulary", where=f"source {name}", mend="use sets that name genes alike"
        )
    spoken = spoken_columns(tasks)
    columns = named_columns(reading.obs, spoken, name, optional=())
    ranked = rank_cells(reading.only(genes).matrix, source=name, top=rules.top, min_genes=rules.min_genes)
    drops = Counter({**reading.drops, **ranked.drops})
    kinds = {f"{name}/{barcode}": str(kind) for barcode, kind in ranked.obs[KIND].items()}
    asked = {cell: kind for cell, kind in kinds.items() if kind in labels}
    if len(asked) < len(kinds):
        drops[NO_COUNTERPART] = len(kinds) - len(asked)
    if not asked:
        raise CellDualityError(
            "no cell is of a type that the training set has", where=f"source {name}", mend="leave this set out"
        )
    chosen = frozenset(asked) if max_cells is None else choose_some(asked, max_cells, rules.streams()[2])
    places = {cell: place for place, cell in enumerate(kinds) if cell in chosen}
    cells = {}
    for i, place in sorted(places.items()):
        cell = ranked.cell(place)
        cells[i] = known_by(cell, {column: cell.value(column) for column in columns})
    return View(name, tuple(tasks), cells, dict.fromkeys(cells, OOD), frozenset(), {}, (), (), dict(drops))
