"""Where cells come from: a published set, or an .h5ad file of one's own; found by name or path, and read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.perturbations import CONTROL, joined
from data_prep.cells import CellTable
from data_prep.h5ad.loaders import load_h5ad
from data_prep.loading.dataset import Dataset
from data_prep.published import PublishedSplit
from data_prep.registry import DATASETS
from data_prep.settings import SourceSettings

if TYPE_CHECKING:
    from pandas import DataFrame

JOINED = "cell of a combination that others have in another order (kept, under one label)"


@dataclass(frozen=True)
class Source:
    """A source that was found: its name, the hash of its files, and how to read it."""

    name: str
    sha256: str
    read: Callable[[], CellTable]
    split: PublishedSplit  # of the set, or what the settings say instead


def find(settings: SourceSettings) -> Source:
    """Return the source called ``settings.name``; files of a published set are fetched if they are not at hand.

    Raises
    ------
    CellDualityError
        If there is no such set or file, it cannot be fetched, or the settings do not fit it.
    """
    dataset = DATASETS.get(settings.name)
    split = dataset.split if dataset is not None and settings.split == "published" else PublishedSplit()
    if settings.held_out:  # in place of what the set itself holds out
        split = PublishedSplit(
            "fractions" if split.rule == "whole" else split.rule, settings.held_out, unknown=split.unknown
        )
    if dataset is not None and not dataset.as_file:
        return _published(dataset, settings, split)
    if dataset is not None or settings.name.lower().endswith(".h5ad"):
        return _file(dataset, settings, split)
    hint = f"use one of {', '.join(DATASETS)}, or a path to an .h5ad file"
    raise CellDualityError(f"no data set {settings.name!r}", code="unknown-dataset", where="source", hint=hint)


def _file(dataset: Dataset | None, settings: SourceSettings, split: PublishedSplit) -> Source:
    known = dataset.as_file if dataset else {}
    label = settings.label_column or known.get("label_column")
    if not label:
        hint = "name the column of obs with the cell types: --label-column NAME"
        raise CellDualityError("no label column given", code="no-label-column", where=settings.name, hint=hint)
    usual = known.get("matrix", "X")
    matrix, expression = settings.matrix or usual, settings.expression
    if expression == "auto" and matrix == usual:  # another matrix may hold another kind of number
        expression = known.get("expression", "auto")
    path = file_of(dataset) if dataset else Path(settings.name)
    if not path.is_file():
        raise CellDualityError(
            "no such file", code="missing-file", where=str(path), hint="check the path of the .h5ad file"
        )

    # A column goes by the name that the tasks know it by, whichever of its names was given.
    names = {column: name for name, column in {"cell_type": label, **settings.columns}.items()}
    held = {
        column if column in names.values() else names.get(column, column): v for column, v in split.held_out.items()
    }
    further = [column for column in held if column not in names.values()]

    def read() -> CellTable:
        others = settings.model_dump(include={"layer", "columns", "gene_symbols", "species"})
        controls = [settings.control, *settings.control.split(",")]
        table = load_h5ad(
            path, label, expression=expression, matrix=matrix, further=further, control=controls, **others
        )
        if settings.control:
            table = replace(table, obs=_with_control(table.obs, settings.control, str(path)))
        return one_label_a_combination(table, controls) if "perturbation" in settings.columns else table

    # White space would make ids that no table of results can be split on.
    name = dataset.name if dataset else "_".join(path.stem.split())
    return Source(name, file_sha256(path), read, replace(split, held_out=held))


def file_of(dataset: Dataset) -> Path:
    """Return the one file of a set that has one; an installed one where it is, without a cache."""
    from data_prep.download.archives import installed_file
    from data_prep.download.fetching import fetch  # the network's libraries are for whoever fetches

    (source,) = dataset.sources
    return installed_file(source) or fetch(dataset)[source.name]


def _with_control(obs: DataFrame, control: str, where: str) -> DataFrame:
    """Return ``obs`` with the perturbation ``control`` renamed to what the tasks call untreated cells."""
    values = obs.get("perturbation", ())
    if control not in set(values):
        found = ", ".join(sorted({str(value) for value in values})[:5]) or "no column of perturbations was named"
        what, hint = f"no cell is called {control!r}; there is: {found}", "use --control with one of them"
        raise CellDualityError(what, code="no-control", where=where, hint=hint)
    return obs.assign(perturbation=[CONTROL if value == control else value for value in values])


def one_label_a_combination(table: CellTable, controls: Iterable[str]) -> CellTable:
    """Return the table with one label for each combination of perturbations, see :func:`joined`."""
    values = list(table.obs["perturbation"])
    labels = joined({*values}, {*controls})
    moved = sum(labels[value] != value for value in values)
    drops = {**table.drops, JOINED: moved} if moved else table.drops
    return replace(table, obs=table.obs.assign(perturbation=[labels[value] for value in values]), drops=drops)


def _published(dataset: Dataset, settings: SourceSettings, split: PublishedSplit) -> Source:
    for flag in ("label_column", "matrix", "layer", "gene_symbols", "columns"):
        if getattr(settings, flag):
            what = f"{flag} is for files of one's own: {dataset.name} has its own loader"
            raise CellDualityError(what, code="file-only", where=f"source {dataset.name}", hint="leave it out")
    from data_prep.download.fetching import fetch

    files = fetch(dataset)
    digest = joint_sha256([file_sha256(path) for _, path in sorted(files.items())])
    return Source(dataset.name, digest, lambda: CellTable.of(dataset.load(files, settings.variant)), split)


def joint_sha256(digests: list[str]) -> str:
    """Return one hash for several, which is the only one if there is one."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
