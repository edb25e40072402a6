"""Where cells come from: a published set, or an .h5ad file of one's own; found by name or path, and read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.perturbations import joined, means_control
from data_prep.cells import CellTable
from data_prep.h5ad.loaders import load_h5ad
from data_prep.loading.dataset import Dataset
from data_prep.registry import DATASETS
from data_prep.settings import SourceSettings
from data_prep.splits import PublishedSplit

JOINED = "cell of a combination that others have in another order or form (kept, under one label)"


@dataclass(frozen=True)
class Source:
    """A source that was found: its name, the hash of its files, and how to read it."""

    name: str
    sha256: str
    read: Callable[[], CellTable]
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

    def known_as(column: str) -> str:
        return column if column in ours else names.get(column, column)

    held = {known_as(column): values for column, values in split.held_out.items()}
    match = tuple(map(known_as, settings.match))
    further = [column for column in (*held, *match) if column not in ours]

    how = settings.model_dump(include={"layer", "columns", "gene_symbols", "species"})
    how |= {"expression": expression, "matrix": matrix, "further": further}

    def read() -> CellTable:
        table = load_h5ad(path, label, control=control_names(settings.control), **how)
        conditions = settings.control or settings.drug or "perturbation" in settings.columns
        return _with_conditions(table, settings, str(path)) if conditions else table

    # White space would make ids that no table of results can be split on.
    name = dataset.name if dataset else "_".join(path.stem.split())
    return Source(name, file_sha256(path), read, replace(split, held_out=held), match)


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
    return Source(dataset.name, digest, lambda: dataset.load(files, settings.variant), split, settings.match)


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
