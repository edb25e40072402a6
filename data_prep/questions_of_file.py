"""What a file of one's own can be asked, by the columns of its cells."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.perturbations import CONTROL, joined
from cellduality_plugin.tasks import TASKS
from data_prep.h5ad.loaders import NAMED, labels_of
from data_prep.registry import DATASETS
from data_prep.sources import control_names, own_file, untreated
from data_prep.views import asked_columns


@dataclass(frozen=True)
class Look:
    """What was found in a file."""

    path: str
    columns: Mapping[str, str]  # those of the file, by the name that questions have for them
    usable: frozenset[str]  # the names of which there is something to tell apart
    shared: Mapping[str, str]  # the one label that all cells have, by name
    controls: frozenset[str]  # what the column of perturbations calls untreated cells

    def notes(self, *, asked: bool) -> list[str]:
        """Return what the user should know, a line each; ``asked`` is whether the pairs were asked for by name."""
        lines = []
        if self.controls - {CONTROL}:
            called = ", ".join(map(repr, sorted(self.controls)))
            lines.append(f"{self.path}: untreated are the cells called {called} (another: --control)")
        for name, label in {} if asked else self.shared.items():
            gone = ", ".join(task.name for task in TASKS.values() if name in asked_columns([task]))
            lines.append(f"{self.path}: all cells have the {name} {label!r}, so there is no {gone}")
        return lines


def look_at(
    name: str, named: Mapping[str, str], reading: Mapping[str, Any], *, held_out: Mapping[str, Collection[str]]
) -> Look:
    """Return what the file called ``name`` has of the columns in ``named``; if there are none, of those of our names.

    ``named`` is {name: column of the file}; ``reading`` are settings of the source, of which matrix, layer, ``control``
    and ``drug`` count; cells with a value in ``held_out`` do not. A CellDualityError is raised if the file cannot be
    read, or has none of our columns where none is named.
    """
    from data_prep.h5ad.matrices import open_tables

    path, drug, control = own_file(name), reading["drug"], reading["control"]
    obs = open_tables(path, reading["matrix"] or "X", reading["layer"] or None).obs
    columns = dict(named) or {ours: ours for ours in NAMED if ours in obs and obs[ours].notna().any()}
    if drug and not named:
        columns.pop("drug", None)
    if not columns:
        what = f"no label column given, and none is called {', '.join(NAMED)}"
        hint = f"name one: --label-column or --perturbation-column with one of: {', '.join(map(str, obs)) or '(none)'}"
        raise CellDualityError(what, code="no-label-column", where=name, hint=hint)
    kept = np.ones(len(obs), dtype=bool)
    for ours, values in held_out.items():
        if (column := columns.get(ours, ours)) in obs:
            kept &= ~obs[column].astype(str).isin(values).to_numpy()
    names = control_names(control)  # which are labels, whatever they read like
    labels: dict[str, set[str]] = {}
    for ours, column in columns.items():
        if column in obs:
            found, _ = labels_of(obs[column], names if ours == "perturbation" else (), f"{path}, obs[{column!r}]")
            labels[ours] = {*found[kept]} - {""}
    controls = untreated(labels.get("perturbation", ()), control, name)
    if "perturbation" in labels:
        labels["perturbation"] = {*joined(labels["perturbation"], controls).values()}
    shared = {ours: min(found) for ours, found in labels.items() if len(found) == 1 and ours != "drug"}
    usable = {*columns, *(["drug"] if drug else [])} - {*shared}  # one that is missing, too: who reads the file says so
    return Look(name, columns, frozenset(usable), shared, frozenset(controls))


def tasks_for(usable: Collection[str]) -> tuple[str, ...]:
    """Return the built-in pairs whose columns are all ``usable``.

    Examples
    --------
    >>> tasks_for({"perturbation"})
    ('perturbation_response_generation', 'perturbation_identification')
    """
    return tuple(name for name, task in TASKS.items() if asked_columns([task]) <= {*usable})


def tasks_of_sources(
    sources: Sequence[str], wanted: Sequence[str], usable: Mapping[str, Collection[str]]
) -> dict[str, tuple[str, ...]]:
    """Return the pairs that are asked about each source.

    A published set serves the pairs the registry names for it, and any other that was asked for and no set of this
    run is known to serve, unless it lacks the columns and another has them. A file of one's own serves all that was
    asked for; if nothing was, what its ``usable`` columns allow.
    """
    known = {name: DATASETS[name].tasks for name in sources if name in DATASETS}
    orphans = [task for task in wanted if not any(task in tasks for tasks in known.values())]
    able = {task: {name for name in known if task in tasks_for(DATASETS[name].columns)} for task in orphans}
    served = {}
    for name in sources:
        if name in known:
            extra = [task for task in orphans if not able[task] or name in able[task]]
            served[name] = tuple(task for task in wanted if task in known[name] or task in extra) or known[name]
        else:
            served[name] = tuple(wanted) or tasks_for(usable[name])
        if not served[name]:
            what = f"no question follows from its columns {', '.join(sorted(usable[name])) or '(none is of use)'}"
            hint = "name cell types, perturbations, or a drug and what it did, of two kinds at least"
            raise CellDualityError(what, code="nothing-to-ask", where=name, hint=hint)
    return served
