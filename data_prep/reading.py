"""One source of cells: found by name or path, read, and cut down to the genes and columns a run speaks of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.perturbations import CONTROL
from cellduality_plugin.settings import Settings
from cellduality_plugin.tasks import DualTask
from data_prep.h5ad.loaders import Loaded, load_h5ad
from data_prep.normalisation import log1p_per_10k
from data_prep.registry import DATASETS
from data_prep.sources import SOURCES, Expression, Matrix, file_sha256, find_source

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame

CONDITIONS = ("perturbation", "drug", "dose")
"""Columns that the experimenter set: known of every cell. All others are annotations, known of labelled cells."""

BINS = 20
"""Groups of equally many genes, by mean expression, in which variances are compared."""

Fraction = Annotated[float, Field(gt=0, lt=1)]


class SourceSettings(Settings):
    """One set of cells, and what a run takes of it.

    Parameters
    ----------
    name
        A set of the registry, or a path to an .h5ad file.
    tasks
        The pairs that are asked about its cells, as the run's ``tasks`` name them; None: all of them.
    label_column, matrix, layer, expression, gene_symbols, species, columns
        What to read from a file; see :func:`data_prep.h5ad.loaders.load_h5ad`. None: what the set is known to use.
    control
        What untreated cells are called in the file's column of perturbations; empty: as the tasks call them.
    variant
        Of a set of the registry: ``"as_published"`` or ``"corrected"``; empty: its default.
    n_labelled
        How many of its training cells show their label; None: what the run says.
    max_cells
        Take a sample of this many cells, in proportion by class; None: all cells.
    held_out
        Values by column, e.g. ``{"cell_type": ("B cell",)}``: such cells are in no split, and kept for
        ``eval_ood.jsonl``.
    """

    name: str
    tasks: tuple[str, ...] | None = None
    label_column: str | None = None
    matrix: Matrix | None = None
    layer: str | None = None
    expression: Expression = "auto"
    gene_symbols: str | None = None
    species: Literal["human", "mouse"] | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    control: str = ""
    variant: Literal["", "as_published", "corrected"] = ""
    n_labelled: int | None = Field(default=None, ge=1)
    max_cells: int | None = Field(default=None, ge=1)
    held_out: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, values: Any) -> Any:
        return {"name": values} if isinstance(values, str) else values


@dataclass(frozen=True)
class Located:
    """A source that was found: its name, the hash of its files, and how to read it."""

    name: str
    sha256: str
    read: Callable[[], Reading]


@dataclass(frozen=True)
class Reading:
    """What was read: cells by genes, whether the values are counts, and what was left out by reason."""

    matrix: AnnData | Loaded
    counts: bool
    drops: dict[str, int]

    @property
    def obs(self) -> DataFrame:
        """What is known of the cells, by name; as text."""
        return self.matrix.obs

    @property
    def genes(self) -> list[str]:
        """The names of the genes, in the order of the matrix."""
        return [str(name) for name in (self.matrix.genes if isinstance(self.matrix, Loaded) else self.matrix.var_names)]

    def only(self, genes: Iterable[str]) -> Reading:
        """Return the cells with ``genes`` alone."""
        wanted = set(genes)
        places = np.array([place for place, name in enumerate(self.genes) if name in wanted], dtype=np.int64)
        if isinstance(self.matrix, Loaded):
            names = tuple(self.matrix.genes[place] for place in places)
            return replace(self, matrix=replace(self.matrix, columns=self.matrix.columns[places], genes=names))
        return replace(self, matrix=self.matrix[:, places])

    def variable_genes(self, count: int, cells: NDArray[np.bool_]) -> list[str]:
        """Return the ``count`` genes whose log1p of counts per 10,000 varies most, beyond what their mean explains.

        That is the variance less the median variance of the genes of a like mean, in up to :data:`BINS` bins.
        Dispersions, being ratios, would choose rare genes, which no sentence of the highest genes ever holds; plain
        variances would choose ribosomal ones, which all sentences hold.

        Parameters
        ----------
        count
            How many; all expressed genes if there are no more.
        cells
            Which cells to look at, in the order of ``obs``: the training cells, so that no test cell has a say.
        """
        total, squares = np.zeros(len(self.genes)), np.zeros(len(self.genes))
        first = 0
        for block in self.matrix.blocks() if isinstance(self.matrix, Loaded) else [self.matrix.X]:
            chosen = block[cells[first : first + block.shape[0]]]
            first += block.shape[0]
            values = log1p_per_10k(chosen) if self.counts else chosen
            total += np.asarray(values.sum(axis=0)).ravel()
            squares += np.asarray(values.multiply(values).sum(axis=0)).ravel()
        mean = total / max(1, int(cells.sum()))
        variance = squares / max(1, int(cells.sum())) - mean**2
        expressed, names = np.flatnonzero(mean > 0), self.genes
        excess, bins = np.zeros_like(mean), max(1, min(BINS, len(expressed) // BINS))
        for places in np.array_split(expressed[np.argsort(mean[expressed], kind="stable")], bins):
            excess[places] = (variance[places] - np.median(variance[places])).round(9)
        order = sorted(expressed.tolist(), key=lambda place: (-excess[place], names[place]))
        return [names[place] for place in order[:count]]


def find(settings: SourceSettings) -> Located:
    """Return the source called ``settings.name``; files of a registry's set are fetched if they are not at hand.

    Raises
    ------
    CellDualityError
        If there is no such set or file, or it cannot be fetched.
    """
    if settings.name in SOURCES or settings.name.endswith(".h5ad"):
        return _file(settings)
    if settings.name in DATASETS:
        return _published(settings)
    names = ", ".join(dict.fromkeys([*SOURCES, *DATASETS]))
    raise CellDualityError(
        f"no data set {settings.name!r}", where="source", mend=f"use one of {names}, or a path to an .h5ad file"
    )


def _file(settings: SourceSettings) -> Located:
    source = find_source(
        settings.name,
        label_column=settings.label_column,
        matrix=settings.matrix,
        expression=settings.expression,
    )
    path = source.path()

    def read() -> Reading:
        loaded = load_h5ad(
            path,
            source.label_column,
            expression=source.expression,
            matrix=source.matrix,
            layer=settings.layer,
            columns=settings.columns,
            gene_symbols=settings.gene_symbols,
            species=settings.species,
        )
        if settings.control:
            loaded = replace(loaded, obs=with_control(loaded.obs, settings.control, str(path)))
        return Reading(loaded, loaded.counts, loaded.drops)

    return Located(source.name, file_sha256(path), read)


def with_control(obs: DataFrame, control: str, where: str) -> DataFrame:
    """Return ``obs`` with the perturbation ``control`` renamed to what the tasks call untreated cells.

    Raises
    ------
    CellDualityError
        If there is no column of perturbations, or no cell is called so.
    """
    values = obs.get("perturbation", ())
    if control not in set(values):
        found = ", ".join(sorted({str(value) for value in values})[:5]) or "no column of perturbations was named"
        raise CellDualityError(
            f"no cell is called {control!r}; there is: {found}", where=where, mend="use --control with one of them"
        )
    return obs.assign(perturbation=[CONTROL if value == control else value for value in values])


def _published(settings: SourceSettings) -> Located:
    for flag in ("label_column", "matrix", "layer", "gene_symbols", "columns"):
        if getattr(settings, flag):
            raise CellDualityError(
                f"{flag} is for files of one's own: {settings.name} has its own loader",
                where=f"source {settings.name}",
                mend="leave it out",
            )
    from data_prep.download.fetching import fetch  # the network's libraries are for whoever fetches

    dataset = DATASETS[settings.name]
    files = fetch(dataset)
    digests = [file_sha256(path) for _, path in sorted(files.items())]
    sha256 = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    def read() -> Reading:
        adata = dataset.load(files, settings.variant)
        return Reading(adata, adata.uns["expression"] not in ("log1p", "log2"), dict(adata.uns["drops"]))

    return Located(dataset.name, sha256, read)


def spoken_columns(tasks: Iterable[DualTask]) -> set[str]:
    """Return the columns of ``obs`` that the questions of ``tasks`` speak of; a paired control cell is none."""
    return {column for task in tasks for column in (*task.kinds, *task.needs)} - {"control"}


def named_columns(obs: Mapping[str, Any], wanted: Iterable[str], name: str, optional: Iterable[str]) -> list[str]:
    """Return the ``wanted`` columns, and the ``optional`` ones that are there, in alphabetical order.

    Raises
    ------
    CellDualityError
        If a wanted column is not there.
    """
    columns = {*wanted, *(set(optional) & set(obs))}
    missing = sorted(columns - set(obs))
    if missing:
        raise CellDualityError(
            f"no column {missing[0]!r}, which the tasks ask for; there is {', '.join(map(str, obs)) or 'none'}",
            where=f"source {name}",
            mend="choose other tasks for it, or name the column that holds it",
        )
    return sorted(columns)
