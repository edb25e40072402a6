"""Sets no cell of which trains: asked with the labels of the training sets, scored by the types that both share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.tasks import DualTask
from data_prep.datasets import DATASETS
from data_prep.settings import PrepareSettings
from data_prep.sources import Source
from data_prep.views import View, take

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
    hint = f"sets that are known to share some are {', '.join(sorted(name for name in known if known[name]))}"
    raise _unshared(f"no cell type of {name} is known to be shared with other sets", hint)


def _unshared(what: str, hint: str, where: str = "foreign") -> CellDualityError:
    return CellDualityError(what, code="no-shared-type", where=where, hint=hint)


def read_foreign(
    settings: PrepareSettings,
    sources: Sequence[Source],
    tasks: Iterable[DualTask],
    views: Sequence[View],
    genes: frozenset[str],
) -> tuple[list[View], CoarseTypes]:
    """Return (the views of the foreign sets, the types they share with those that train); nothing without such sets.

    ``views`` are the sets that train, with the vocabulary ``genes``; those whose types no pair speaks of have no say. A
    CellDualityError is raised if no pair names types, no shared types are known, or no cell of a set can be asked
    about.
    """
    if not sources:
        return [], {}
    asked = [task for task in tasks if isinstance(task.answer, OneOf) and task.answer.kind == KIND]
    if not asked:
        what, hint = "no task of this run names cell types", "add --task cell_type_annotation"
        raise CellDualityError(what, code="no-annotation", where="foreign", hint=hint)
    training = {view.name: _types_of(view) for view in views if view.labelled and view.labels(KIND)}
    trained = {coarse for types in training.values() for coarse in types.values()}
    shared = {one.name: {label: c for label, c in shareable(one.name).items() if c in trained} for one in sources}
    others: list[View] = []
    for one in sources:
        others.append(take(one, one.read(), asked, settings, genes, shared[one.name]))
        if not others[-1].cells:
            what = "no cell is of a type that the training set has"
            raise _unshared(what, "leave this set out", f"source {one.name}")
    return others, {"training": training, "foreign": shared}


def _types_of(view: View) -> dict[str, str]:
    shared, labels = shareable(view.name), view.labels(KIND)
    if unknown := sorted(labels - DATASETS[view.name].coarse_types.keys()):  # not the column of the published labels
        what = f"of the label {unknown[0]!r} of {view.name} no shared type is known"
        raise _unshared(what, "leave --label-column out, or --foreign")
    return {label: coarse for label, coarse in shared.items() if label in labels}
