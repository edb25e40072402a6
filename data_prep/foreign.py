"""Sets no cell of which trains: asked with the labels of the training sets, scored by the types that both share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import TypeAlias

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.tasks import DualTask
from data_prep.cells import in_names_of, rank_cells
from data_prep.datasets import DATASETS
from data_prep.settings import PrepareSettings
from data_prep.sources import Source, asked_columns
from data_prep.splits import OOD, choose_some
from data_prep.views import View, known_by, named_columns

NO_COUNTERPART = "cell of a type the training set does not have"

KIND = "cell_type"  # the label set whose labels have types shared with other sets

CoarseTypes: TypeAlias = dict[str, dict[str, dict[str, str]]]
"""``{"training": {set: {label: shared type}}, "foreign": {...}}``; labels without a shared type are not there."""


def shareable(name: str) -> dict[str, str]:
    """Return the shared type of each label of a set that has one; labels without a counterpart are left out.

    A CellDualityError is raised if the registry knows of no shared type in that set.
    """
    known = {name: {label: c for label, c in dataset.coarse_types.items() if c} for name, dataset in DATASETS.items()}
    if shared := known.get(name):
        return shared
    what = f"no cell type of {name} is known to be shared with other sets"
    hint = f"sets that are known to share some are {', '.join(sorted(name for name in known if known[name]))}"
    raise CellDualityError(what, code="no-shared-type", where="foreign", hint=hint)


def read_foreign(
    settings: PrepareSettings,
    found: Sequence[Source],
    tasks: Iterable[DualTask],
    views: Sequence[View],
    genes: frozenset[str],
) -> tuple[list[View], CoarseTypes]:
    """Return (the views of the foreign sets, the types they share with those that train); nothing without such sets.

    ``found`` are the foreign sets in the order of the settings; ``views`` are the sets that train, with the vocabulary
    ``genes``; those whose types no pair speaks of have no say. A CellDualityError is raised if no pair names types, no
    shared types are known, or no cell of a set can be asked about.
    """
    if not found:
        return [], {}
    asked = [task for task in tasks if isinstance(task.answer, OneOf) and task.answer.kind == KIND]
    if not asked:
        what, hint = "no task of this run names cell types", "add --task cell_type_annotation"
        raise CellDualityError(what, code="no-annotation", where="foreign", hint=hint)
    training = {view.name: _types_of(view) for view in views if view.labelled and view.labels(KIND)}
    trained = {coarse for types in training.values() for coarse in types.values()}
    shared = {one.name: {label: c for label, c in shareable(one.name).items() if c in trained} for one in found}
    others = [
        _foreign_view(settings, source, asked, wanted.max_cells, genes, shared[source.name])
        for source, wanted in zip(found, settings.foreign, strict=True)
    ]
    return others, {"training": training, "foreign": shared}


def _types_of(view: View) -> dict[str, str]:
    shared, labels = shareable(view.name), view.labels(KIND)
    if unknown := sorted(labels - DATASETS[view.name].coarse_types.keys()):  # not the column of the published labels
        what = f"of the label {unknown[0]!r} of {view.name} no shared type is known"
        hint = "leave --label-column out, or --foreign"
        raise CellDualityError(what, code="no-shared-type", where="foreign", hint=hint)
    return {label: coarse for label, coarse in shared.items() if label in labels}


def _foreign_view(
    settings: PrepareSettings,
    source: Source,
    tasks: Sequence[DualTask],
    max_cells: int | None,
    genes: frozenset[str],
    labels: Collection[str],
) -> View:
    """Return the view of a foreign set: at most ``max_cells`` cells with one of ``labels``, all out of distribution."""
    name, where, table = source.name, f"source {source.name}", source.read()
    table, lost = in_names_of(genes, table, name)
    columns = named_columns(table.obs, asked_columns(tasks), name)
    top, least = settings.top_genes, settings.min_genes
    ranked = rank_cells(table, source=name, top=top, min_genes=least, genes=genes)
    drops = Counter({**table.drops, **lost, **ranked.drops})
    rows, known = ranked.rows, ranked.known(columns)
    asked = {i: values[KIND] for i, values in known.items() if values[KIND] in labels}
    if len(asked) < len(known):
        drops[NO_COUNTERPART] = len(known) - len(asked)
    if not asked:
        what, hint = "no cell is of a type that the training set has", "leave this set out"
        raise CellDualityError(what, code="no-shared-type", where=where, hint=hint)
    chosen = asked if max_cells is None else choose_some(asked, max_cells, settings.stream("sample"))
    cells = {i: known_by(Cell(i, ranked.genes(rows[i])), known[i]) for i in sorted(chosen)}
    return View(name, tuple(tasks), cells, dict.fromkeys(cells, OOD), dict(drops))
