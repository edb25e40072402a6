"""Sets no cell of which trains: asked with the labels of the training sets, scored by the types that both share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import TypeAlias

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.tasks import DualTask
from data_prep.cells import gene_names, rank_cells
from data_prep.reading import Located
from data_prep.registry import DATASETS
from data_prep.settings import PrepareSettings
from data_prep.splits import choose_some
from data_prep.views import OOD, View, known_by, named_columns, spoken_columns

NO_COUNTERPART = "cell of a type the training set does not have"

KIND = "cell_type"
"""The label set whose labels have types shared with other sets."""

CoarseTypes: TypeAlias = dict[str, dict[str, dict[str, str]]]
"""``{"training": {set: {label: shared type}}, "foreign": {...}}``; labels without a shared type are not there."""


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
    known = {name: {label: c for label, c in dataset.coarse_types.items() if c} for name, dataset in DATASETS.items()}
    if shared := known.get(name):
        return shared
    raise CellDualityError(
        f"no cell type of {name} is known to be shared with other sets",
        where="foreign",
        hint=f"sets that are known to share some are {', '.join(sorted(name for name in known if known[name]))}",
    )


def read_foreign(
    settings: PrepareSettings,
    found: Sequence[Located],
    tasks: Iterable[DualTask],
    views: Sequence[View],
    genes: frozenset[str],
) -> tuple[list[View], CoarseTypes]:
    """Return (the views of the foreign sets, the types they share with those that train); nothing without such sets.

    ``found`` are the foreign sets in the order of the settings; ``views`` are the sets that train, with the vocabulary
    ``genes``; those whose types no pair speaks of have no say.

    Raises
    ------
    CellDualityError
        If no pair names types, no shared types are known, or no cell of a set can be asked about.
    """
    if not found:
        return [], {}
    asked = [task for task in tasks if isinstance(task.answer, OneOf) and task.answer.kind == KIND]
    if not asked:
        hint = "add --task cell_type_annotation"
        raise CellDualityError("no task of this run names cell types", where="foreign", hint=hint)
    training = {view.name: _types_of(view) for view in views if view.labels(KIND)}
    taught = {coarse for types in training.values() for coarse in types.values()}
    shared = {one.name: {label: c for label, c in shareable(one.name).items() if c in taught} for one in found}
    others = [
        _foreign_view(settings, source, asked, wanted.max_cells, genes, shared[source.name])
        for source, wanted in zip(found, settings.foreign, strict=True)
    ]
    return others, {"training": training, "foreign": shared}


def _types_of(view: View) -> dict[str, str]:
    """Return the shared type of each label that is trained on."""
    shared = shareable(view.name)
    unknown = sorted(view.labels(KIND) - DATASETS[view.name].coarse_types.keys())
    if unknown:  # another column than the published labels
        what, hint = f"of the label {unknown[0]!r} of {view.name} no shared type is known", "leave --label-column out"
        raise CellDualityError(what, where="foreign", hint=f"{hint}, or --foreign")
    return {label: coarse for label, coarse in shared.items() if label in view.labels(KIND)}


def _foreign_view(
    settings: PrepareSettings,
    source: Located,
    tasks: Sequence[DualTask],
    max_cells: int | None,
    genes: frozenset[str],
    labels: Collection[str],
) -> View:
    """Return the view of a foreign set: every cell out of distribution, with sentences of ``genes`` alone.

    Cells whose label is none of ``labels`` are left out and counted; of the others at most ``max_cells`` are taken, in
    proportion by type.
    """
    name, where, reading = source.name, f"source {source.name}", source.read()
    if genes.isdisjoint(gene_names(reading.matrix)):
        hint = "use sets that name genes alike"
        raise CellDualityError("none of its genes is in the vocabulary", where=where, hint=hint)
    columns = named_columns(reading.obs, spoken_columns(tasks), name)
    top, least = settings.top_genes, settings.min_genes
    ranked = rank_cells(reading.matrix, source=name, top=top, min_genes=least, genes=genes)
    drops = Counter({**reading.drops, **ranked.drops})
    rows, known = ranked.rows, ranked.known(columns)
    asked = {i: values[KIND] for i, values in known.items() if values[KIND] in labels}
    if len(asked) < len(known):
        drops[NO_COUNTERPART] = len(known) - len(asked)
    if not asked:
        what = "no cell is of a type that the training set has"
        raise CellDualityError(what, where=where, hint="leave this set out")
    chosen = asked if max_cells is None else choose_some(asked, max_cells, settings.stream("sample"))
    cells = {i: known_by(Cell(i, ranked.genes(rows[i])), known[i]) for i in sorted(chosen)}
    return View(name, tuple(tasks), cells, dict.fromkeys(cells, OOD), dict(drops))
