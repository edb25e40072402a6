"""Where cells come from: a published set, or an .h5ad file of one's own; found by name or path, and read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.perturbations import CONTROL, means_control
from data_prep.cells import CellTable
from data_prep.h5ad.loaders import load_h5ad
from data_prep.loading.dataset import Dataset
from data_prep.registry import DATASETS
from data_prep.settings import SourceSettings


@dataclass(frozen=True)
class Source:
    """A source that was found: its name, the hash of its files, and how to read it."""

    name: str
    sha256: str
    read: Callable[[], CellTable]


def find(settings: SourceSettings, asked: Collection[str] = ("cell_type",)) -> Source:
    """Return the source called ``settings.name``; files of a published set are fetched if they are not at hand.

    ``asked`` are the columns that the tasks speak of.

    Raises
    ------
    CellDualityError
        If there is no such set or file, it cannot be fetched, or the settings do not fit it.
    """
    dataset = DATASETS.get(settings.name)
    if dataset is not None and not dataset.as_file:
        return _published(dataset, settings)
    return _file(dataset, settings, asked)


def own_file(name: str) -> Path:
    """Return the path of a file of one's own; a CellDualityError if there is none, or it is no .h5ad file."""
    if not name.endswith(".h5ad"):
        hint = f"use one of {', '.join(DATASETS)}, or a path to an .h5ad file"
        raise CellDualityError(f"no data set {name!r}", code="unknown-dataset", where="source", hint=hint)
    if not (path := Path(name)).is_file():
        hint = "check the path of the .h5ad file"
        raise CellDualityError("no such file", code="missing-file", where=str(path), hint=hint)
    return path


def _file(dataset: Dataset | None, settings: SourceSettings, asked: Collection[str]) -> Source:
    path = file_of(dataset) if dataset else own_file(settings.name)
    known = dataset.as_file if dataset else {}
    label = settings.label_column or known.get("label_column")
    if not label and "cell_type" in asked:
        hint = "name the column of obs with the cell types: --label-column NAME"
        raise CellDualityError("no label column given", code="no-label-column", where=settings.name, hint=hint)
    columns = _columns(settings, label)
    usual = known.get("matrix", "X")
    matrix, expression = settings.matrix or usual, settings.expression
    if expression == "auto" and matrix == usual:  # another matrix may hold another kind of number
        expression = known.get("expression", "auto")

    def read() -> CellTable:
        others = settings.model_dump(include={"layer", "gene_symbols", "species"})
        table = load_h5ad(path, label, expression=expression, matrix=matrix, columns=columns, **others)
        conditions = settings.control or settings.drug or "perturbation" in columns
        return _with_conditions(table, settings, str(path)) if conditions else table

    # White space would make ids that no table of results can be split on.
    name = dataset.name if dataset else "_".join(path.stem.split())
    return Source(name, file_sha256(path), read)


def file_of(dataset: Dataset) -> Path:
    """Return the one file of a set that has one; an installed one where it is, without a cache."""
    from data_prep.download.archives import installed_file
    from data_prep.download.fetching import fetch  # the network's libraries are for whoever fetches

    (source,) = dataset.sources
    return installed_file(source) or fetch(dataset)[source.name]


def _columns(settings: SourceSettings, label: str | None) -> dict[str, str]:
    """Return the columns to read besides cell types: those named, and those that hold cells out or match controls."""
    if settings.drug and "drug" in settings.columns:
        what, hint = f"the drug is {settings.drug!r} and in a column", "give --drug or --drug-column"
        raise CellDualityError(what, code="settings-clash", where=settings.name, hint=hint)
    given = {*settings.columns, *(["cell_type"] if label else []), *(["drug"] if settings.drug else [])}
    others = {column: column for column in (*settings.held_out, *settings.match) if column not in given}
    return {**settings.columns, **others}


def _with_conditions(table: CellTable, settings: SourceSettings, where: str) -> CellTable:
    """Return the table with the one drug of the file, and with untreated cells called as the tasks do."""
    obs = table.obs
    if "<" in settings.drug or ">" in settings.drug:
        what = f"drug {settings.drug!r} holds an angle bracket"
        raise CellDualityError(what, code="unusable-label", where="--drug", hint="rename it")
    if settings.drug:
        obs = obs.assign(drug=" ".join(settings.drug.split()))
    controls = untreated(obs.get("perturbation", ()), settings.control, where)
    if controls - {CONTROL}:
        obs = obs.assign(perturbation=[CONTROL if value in controls else value for value in obs["perturbation"]])
    return replace(table, obs=obs)


def untreated(values: Iterable[str], control: str, where: str) -> set[str]:
    """Return which of ``values`` are untreated cells: those that ``control`` names, or else those of a usual name.

    ``control`` is one of the values, or several with commas; a CellDualityError if one is not there.
    """
    there = {str(value) for value in values}
    if not control:
        return {value for value in there if means_control(value)}
    named = {control} if control in there else {name.strip() for name in control.split(",")}
    if missing := sorted(named - there):
        found = ", ".join(sorted(there)[:5]) or "no column of perturbations was named"
        what, hint = f"no cell is called {missing[0]!r}; there is: {found}", "use --control with one of them"
        raise CellDualityError(what, code="no-control", where=where, hint=hint)
    return named


def _published(dataset: Dataset, settings: SourceSettings) -> Source:
    for flag in ("label_column", "matrix", "layer", "gene_symbols", "columns", "drug"):
        if getattr(settings, flag):
            what = f"{flag} is for files of one's own: {dataset.name} has its own loader"
            raise CellDualityError(what, code="file-only", where=f"source {dataset.name}", hint="leave it out")
    from data_prep.download.fetching import fetch

    files = fetch(dataset)
    digest = joint_sha256([file_sha256(path) for _, path in sorted(files.items())])
    return Source(dataset.name, digest, lambda: CellTable.of(dataset.load(files, settings.variant)))


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
