"""One source of cells: found by name or path, and read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.perturbations import CONTROL
from data_prep.cells import blocks_of, gene_names
from data_prep.h5ad.loaders import Loaded, load_h5ad
from data_prep.normalisation import log1p_per_10k
from data_prep.registry import DATASETS
from data_prep.settings import SourceSettings
from data_prep.sources import SOURCES, file_sha256, find_source

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame

BINS = 20
"""Groups of equally many genes, by mean expression, in which variances are compared."""


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
            Which cells to look at, in the order of ``obs``.
        """
        names = gene_names(self.matrix)
        total, squares = np.zeros(len(names)), np.zeros(len(names))
        first = 0
        for block in blocks_of(self.matrix):
            chosen = block[cells[first : first + block.shape[0]]]
            first += block.shape[0]
            values = log1p_per_10k(chosen) if self.counts else chosen
            total += np.asarray(values.sum(axis=0)).ravel()
            squares += np.asarray(values.multiply(values).sum(axis=0)).ravel()
        mean = total / max(1, int(cells.sum()))
        variance = squares / max(1, int(cells.sum())) - mean**2
        expressed = np.flatnonzero(mean > 0)
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
    hint = f"use one of {names}, or a path to an .h5ad file"
    raise CellDualityError(f"no data set {settings.name!r}", where="source", hint=hint)


def _file(settings: SourceSettings) -> Located:
    told = settings.model_dump(include={"label_column", "matrix", "expression"})
    source = find_source(settings.name, **told)
    path = source.path()

    def read() -> Reading:
        loaded = load_h5ad(
            path,
            source.label_column,
            expression=source.expression,
            matrix=source.matrix,
            **settings.model_dump(include={"layer", "columns", "gene_symbols", "species"}),
        )
        if settings.control:
            loaded = replace(loaded, obs=_with_control(loaded.obs, settings.control, str(path)))
        return Reading(loaded, loaded.counts, loaded.drops)

    return Located(source.name, file_sha256(path), read)


def _with_control(obs: DataFrame, control: str, where: str) -> DataFrame:
    """Return ``obs`` with the perturbation ``control`` renamed to what the tasks call untreated cells."""
    values = obs.get("perturbation", ())
    if control not in set(values):
        found = ", ".join(sorted({str(value) for value in values})[:5]) or "no column of perturbations was named"
        raise CellDualityError(
            f"no cell is called {control!r}; there is: {found}", where=where, hint="use --control with one of them"
        )
    return obs.assign(perturbation=[CONTROL if value == control else value for value in values])


def _published(settings: SourceSettings) -> Located:
    for flag in ("label_column", "matrix", "layer", "gene_symbols", "columns"):
        if getattr(settings, flag):
            what = f"{flag} is for files of one's own: {settings.name} has its own loader"
            raise CellDualityError(what, where=f"source {settings.name}", hint="leave it out")
    from data_prep.download.fetching import fetch  # the network's libraries are for whoever fetches

    dataset = DATASETS[settings.name]
    files = fetch(dataset)

    def read() -> Reading:
        adata = dataset.load(files, settings.variant)
        return Reading(adata, adata.uns["expression"] not in ("log1p", "log2"), dict(adata.uns["drops"]))

    return Located(dataset.name, joint_sha256([file_sha256(path) for _, path in sorted(files.items())]), read)


def joint_sha256(digests: list[str]) -> str:
    """Return one hash for several, which is the only one if there is one."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
