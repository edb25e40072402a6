"""Where cells come from: a published set or an .h5ad file, found by name or path; and what a file can be asked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.perturbations import CONTROL, joined, means_control
from cellduality_plugin.tasks import TASKS, DualTask
from data_prep.cells import CellTable
from data_prep.datasets import DATASETS
from data_prep.h5ad.loaders import NAMED, labels_of, load_h5ad
from data_prep.loading.dataset import Dataset
from data_prep.settings import SourceSettings
from data_prep.splits import PublishedSplit

HELD = 64_000_000  # values of a matrix, 512 MB, up to which it is read once and kept while rows are made of it
JOINED = "cell of a combination that others have in another order or form (kept, under one label)"


@dataclass(frozen=True)
class Source:
    """A source that was found: its name, the hash of its files, and how to read it."""

    name: str
    sha256: str
    read: Callable[[], CellTable]
    settings: SourceSettings  # as they were given
    split: PublishedSplit  # of the set, or what the settings say instead
    match: tuple[str, ...] = ()  # columns that a cell and its control share, by the names that tasks know them by


def find(settings: SourceSettings, asked: Collection[str] = ("cell_type",)) -> Source:
    """Return the source called ``settings.name``, fetched if need be; ``asked`` are the columns that tasks speak of."""
    dataset = DATASETS.get(settings.name)
    split = dataset.split if dataset is not None and settings.split == "published" else PublishedSplit()
    if settings.held_out:  # in place of what the set itself holds out
        rule = "fractions" if split.rule == "whole" else split.rule
        split = PublishedSplit(rule, settings.held_out, unknown=split.unknown)
    if dataset is not None and not dataset.as_file:
        return _published(dataset, settings, split)
    return _file(dataset, settings, split, asked)


def own_file(name: str) -> Path:
    """Return the path of a file of one's own; a CellDualityError if there is none, or it is no .h5ad file."""
    if not name.lower().endswith(".h5ad"):
        hint = f"use one of {', '.join(DATASETS)}, or a path to an .h5ad file"
        raise CellDualityError(f"no data set {name!r}", code="unknown-dataset", where="source", hint=hint)
    if not (path := Path(name)).is_file():
        is_folder = path.is_dir()
        what = "a folder, as zarr has it, and no .h5ad file" if is_folder else "no such file"
        hint = "write it as one (anndata: read_zarr, write_h5ad)" if is_folder else "check the path of the .h5ad file"
        raise CellDualityError(what, code="missing-file", where=str(path), hint=hint)
    return path


def _file(dataset: Dataset | None, settings: SourceSettings, split: PublishedSplit, asked: Collection[str]) -> Source:
    path = file_of(dataset) if dataset else own_file(settings.name)
    known = dataset.as_file if dataset else {}
    label = settings.label_column or known.get("label_column")
    if not label and "cell_type" in asked:
        hint = "name the column of obs with the cell types: --label-column NAME"
        raise CellDualityError("no label column given", code="no-label-column", where=settings.name, hint=hint)
    if settings.drug and "drug" in settings.columns:
        what, hint = f"the drug is {settings.drug!r} and in a column", "give --drug or --drug-column"
        raise CellDualityError(what, code="settings-clash", where=settings.name, hint=hint)
    usual = known.get("matrix", "X")
    matrix, expression = settings.matrix or usual, settings.expression
    if expression == "auto" and matrix == usual:  # another matrix may hold another kind of number
        expression = known.get("expression", "auto")

    # A column goes by the name that the tasks know it by, whichever of its names was given.
    names = {column: name for name, column in {**({"cell_type": label} if label else {}), **settings.columns}.items()}
    ours = {*names.values(), *(["drug"] if settings.drug else [])}
    names |= {name: name for name in ours}
    held = {names.get(column, column): values for column, values in split.held_out.items()}
    match = tuple(names.get(column, column) for column in settings.match)
    further = [column for column in (*held, *match) if column not in ours]

    how = settings.model_dump(include={"layer", "columns", "gene_symbols", "species"})
    how |= {"expression": expression, "matrix": matrix, "further": further, "held": HELD}

    def read() -> CellTable:
        table = load_h5ad(path, label, control=control_names(settings.control), **how)
        conditions = settings.control or settings.drug or "perturbation" in settings.columns
        return _with_conditions(table, settings, str(path)) if conditions else table

    # White space would make ids that no table of results can be split on.
    name = dataset.name if dataset else "_".join(path.stem.split())
    return Source(name, file_sha256(path), read, settings, replace(split, held_out=held), match)


def file_of(dataset: Dataset) -> Path:
    """Return the one file of a set that has one; an installed one where it is, without a cache."""
    from data_prep.download.fetching import fetch, installed_file

    (source,) = dataset.sources
    return installed_file(source) or fetch(dataset)[source.name]


def _with_conditions(table: CellTable, settings: SourceSettings, where: str) -> CellTable:
    """Return the table with the one drug of the file, and with perturbations called as the tasks do."""
    obs, drops = table.obs, table.drops
    if "<" in settings.drug or ">" in settings.drug:
        what = f"drug {settings.drug!r} holds an angle bracket"
        raise CellDualityError(what, code="unusable-label", where="--drug", hint="rename it")
    if settings.drug:
        obs = obs.assign(drug=" ".join(settings.drug.split()))
    values = list(obs.get("perturbation", ()))
    controls = untreated({*values}, settings.control, where)
    if values:
        labels = joined({*values}, controls)
        obs = obs.assign(perturbation=[labels[value] for value in values])
        if moved := sum(labels[value] != value and value not in controls for value in values):
            drops = {**drops, JOINED: moved}
    return replace(table, obs=obs, drops=drops)


def control_names(control: str) -> list[str]:
    """Return what ``control`` may name: all of it is one name, or else commas stand between several."""
    return [control, *(name.strip() for name in control.split(","))]


def untreated(values: Collection[str], control: str, where: str) -> set[str]:
    """Return what ``values`` call untreated cells, alone or in a combination: ``control``, or else any usual name.

    ``control`` is one of the values, or several with commas; a CellDualityError if one is not there.
    """
    there = {*values, *(part.strip() for value in values for part in value.split("+"))}
    if not control:
        return {value for value in there if means_control(value)}
    named = [control] if control in there else control_names(control)[1:]
    if missing := sorted({*named} - there):
        found = ", ".join(sorted(values)[:5]) or "no column of perturbations was named"
        what, hint = f"no cell is called {missing[0]!r}; there is: {found}", "use --control with one of them"
        raise CellDualityError(what, code="no-control", where=where, hint=hint)
    return {*named}


def _published(dataset: Dataset, settings: SourceSettings, split: PublishedSplit) -> Source:
    for flag in ("label_column", "matrix", "layer", "gene_symbols", "columns", "drug"):
        if getattr(settings, flag):
            what = f"{flag} is for files of one's own: {dataset.name} has its own loader"
            raise CellDualityError(what, code="file-only", where=f"source {dataset.name}", hint="leave it out")
    from data_prep.download.fetching import fetch

    files = fetch(dataset)
    digest = joint_sha256([file_sha256(path) for _, path in sorted(files.items())])
    read = partial(dataset.load, files, settings.variant)
    return Source(dataset.name, digest, read, settings, split, settings.match)


def joint_sha256(digests: list[str]) -> str:
    """Return one hash for several, which is the only one if there is one."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def file_sha256(path: Path, kind: str = "sha256") -> str:
    """Return the SHA-256 of a file's bytes, or another hash of hashlib, as hex digits."""
    digest = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def asked_columns(tasks: Iterable[DualTask]) -> set[str]:
    """Return the columns of ``obs`` that the questions of ``tasks`` speak of; a paired control cell is none."""
    return {column for task in tasks for column in (*task.kinds, *task.needs)} - {"control"}


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
    name: str, named: Mapping[str, str], reading: Mapping[str, Any], held_out: Mapping[str, Collection[str]]
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
    """Return the built-in pairs whose columns are all ``usable``."""
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
