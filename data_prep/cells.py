"""From a table of cells by genes to ranked cells."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.errors import CellDualityError
from data_prep.h5ad.genes import to_human

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame

FEW_GENES = "cell with too few expressed genes"
UNSPEAKABLE_GENE = "gene whose name is empty or holds white space, a comma or an angle bracket"

FEW_SHARED = 0.05  # the share of the genes of the smaller of two sets that both have at least
MOST_CELLS = 4096  # cells that the curve is the mean of, at most: the first ones of a set
BINS = 20  # groups of equally many genes, by mean expression, in which variances are compared


def log1p_per_10k(counts: Any) -> Any:
    """Return log1p of counts per 10,000 of a sparse matrix, cells by genes; a cell without counts stays empty."""
    values = counts.tocsr().astype(np.float64)  # always a copy
    totals = np.asarray(values.sum(axis=1)).ravel()
    scale = np.divide(10_000.0, totals, out=np.zeros_like(totals), where=totals > 0)
    values.data = np.log1p(values.data * np.repeat(scale, np.diff(values.indptr)))
    return values


def speakable(gene: str) -> bool:
    """Return whether a gene's name survives being written into a cell sentence and read back."""
    return re.fullmatch(r"[^\s,<>]+", gene) is not None


@dataclass(frozen=True)
class CellTable:
    """Cells by genes, in memory or in a file."""

    obs: DataFrame  # what is known of the cells, by name; as text
    genes: tuple[str, ...]  # in the order of the columns
    counts: Callable[[], bool]  # whether the values are counts, not logarithms; it may need a pass, the first
    drops: dict[str, int]  # how many cells and genes were left out, by reason
    blocks: Callable[[], Iterator[Any]]  # CSR blocks of rows without duplicate entries, in the order of ``obs``

    @classmethod
    def of(cls, adata: AnnData) -> CellTable:
        """Return the table of an AnnData, which stays as it is; ``uns["expression"]`` may say that values are logs."""
        import scipy.sparse

        block = scipy.sparse.csr_matrix(adata.X)
        if not block.has_canonical_format:
            block = block.copy()
            block.sum_duplicates()
        counts = adata.uns.get("expression") not in ("log1p", "log2")
        return cls(adata.obs, tuple(map(str, adata.var_names)), lambda: counts, {}, lambda: iter([block]))

    def logs(self, cells: NDArray[np.bool_]) -> Iterator[Any]:
        """Yield the rows of the chosen ``cells``, block by block: log1p of counts per 10,000, or its own logs."""
        first, counts = 0, self.counts()
        for block in self.blocks():
            chosen = block[cells[first : first + block.shape[0]]]
            first += block.shape[0]
            yield log1p_per_10k(chosen) if counts else chosen.tocsr()

    def variable_genes(self, count: int, cells: NDArray[np.bool_]) -> list[str]:
        """Return the ``count`` genes whose log1p of counts per 10,000 varies most in the chosen ``cells``.

        Compared are variances less the median variance of the genes of a like mean, in up to :data:`BINS` bins.
        """
        total, squares = np.zeros(len(self.genes)), np.zeros(len(self.genes))
        for values in self.logs(cells):
            total += np.asarray(values.sum(axis=0)).ravel()
            squares += np.asarray(values.multiply(values).sum(axis=0)).ravel()
        mean = total / max(1, int(cells.sum()))
        variance = squares / max(1, int(cells.sum())) - mean**2
        expressed = np.flatnonzero(mean > 0)
        excess, bins = np.zeros_like(mean), max(1, min(BINS, len(expressed) // BINS))
        for places in np.array_split(expressed[np.argsort(mean[expressed], kind="stable")], bins):
            excess[places] = (variance[places] - np.median(variance[places])).round(9)
        order = sorted(expressed.tolist(), key=lambda place: (-excess[place], self.genes[place]))
        return [self.genes[place] for place in order[:count]]


@dataclass(frozen=True)
class RankedCells:
    """The highest genes of many cells, in a few bytes a gene."""

    source: str  # the name of the set: the first part of every cell's id
    names: tuple[str, ...]  # of genes, sorted
    top: NDArray[np.signedinteger[Any]]  # cells by K: places in ``names``, descending by expression, filled up with -1
    obs: DataFrame  # what is known of each cell, by its name
    expressed: tuple[str, ...]  # the genes that any cell of the table expresses, sorted by name
    drops: dict[str, int]  # how many genes and cells were left out, by reason

    def __len__(self) -> int:
        return len(self.top)

    def __iter__(self) -> Iterator[Cell]:
        return map(self.cell, range(len(self)))

    @property
    def rows(self) -> dict[str, int]:
        """The row of each cell, by its id: set and barcode."""
        return {f"{self.source}/{barcode}": row for row, barcode in enumerate(self.obs.index)}

    def known(self, columns: Collection[str]) -> dict[str, dict[str, str]]:
        """Return the values of ``columns`` as text, by the id of each cell."""
        table = {column: self.obs[column].astype(str).to_list() for column in columns}
        return {name: {column: table[column][row] for column in columns} for name, row in self.rows.items()}

    def genes(self, row: int) -> tuple[str, ...]:
        """Return the genes of the cell in that row, descending by expression."""
        return tuple(self.names[place] for place in self.top[row].tolist() if place >= 0)

    def cell(self, row: int) -> Cell:
        """Return the cell in that row, with all that is known of it."""
        known = {str(name): str(self.obs[name].iat[row]) for name in self.obs.columns}
        return Cell(f"{self.source}/{self.obs.index[row]}", self.genes(row), known)


def rank_cells(
    cells: CellTable | AnnData, *, source: str, top: int, min_genes: int = 8, genes: Container[str] | None = None
) -> RankedCells:
    """Return the ranked cells of a table, block by block: the ``top`` highest genes of each, ties by name.

    Counts and log1p values of a cell rank alike. Cells with fewer than ``min_genes`` expressed genes are left out, and
    genes that are not among ``genes`` (None: all). ``source`` is the first part of every cell's id. A CellDualityError
    is raised if no cell is left.
    """
    from data_prep.ranking import rank_rows

    table = cells if isinstance(cells, CellTable) else CellTable.of(cells)
    asked = [place for place, gene in enumerate(table.genes) if genes is None or gene in genes]
    usable = [place for place in asked if speakable(table.genes[place])]
    if asked and not usable:
        what = f"no gene has a name that can be written in a cell sentence ({table.genes[asked[0]]!r})"
        raise CellDualityError(what, code="no-genes", where=source, hint="use names without blanks, commas, < and >")
    usable.sort(key=table.genes.__getitem__)  # equal values are ranked by name
    names, ties = [table.genes[place] for place in usable], np.full(len(table.genes), -1, dtype=np.int32)
    ties[usable] = np.arange(len(usable))
    small: type[np.signedinteger[Any]] = np.int16 if len(names) <= np.iinfo(np.int16).max else np.int32
    ranked = np.empty((len(table.obs), 0), dtype=small)
    expressed = np.zeros(len(ties), dtype=bool)
    first = 0
    for block in table.blocks():
        width = min(top, int(np.diff(block.indptr).max(initial=0)))
        if width > ranked.shape[1]:  # only as wide as a cell is long, which the first block usually shows
            wider = np.empty((len(ranked), width), dtype=small)
            wider[:first, : ranked.shape[1]], wider[:first, ranked.shape[1] :] = ranked[:first], -1
            ranked = wider
        rows = slice(first, first + block.shape[0])
        expressed |= rank_rows(block, ties, ranked.shape[1], out=ranked[rows])[1]
        first += block.shape[0]
    enough = (ranked[:, min_genes - 1] >= 0) if min_genes <= ranked.shape[1] else np.zeros(len(ranked), dtype=bool)
    if not enough.any():
        what, hint = f"no cell has {min_genes} expressed genes", "lower --min-genes or check the matrix"
        raise CellDualityError(what, code="too-few-genes", where=source, hint=hint)
    drops = {UNSPEAKABLE_GENE: len(asked) - len(usable), FEW_GENES: int((~enough).sum())}
    obs = table.obs
    if drops[FEW_GENES]:  # an atlas is not copied for nothing
        ranked, obs = ranked[enough], obs[enough]
    spoken = tuple(name for name, found in zip(names, expressed.tolist(), strict=False) if found)
    return RankedCells(source, tuple(names), ranked, obs, spoken, {why: n for why, n in drops.items() if n})


def refuse_few_shared(genes: Mapping[str, Sequence[str]]) -> None:
    """Raise if two sets that train hardly share a gene: they are of two species, or name their genes in two ways."""
    for (one, first), (other, second) in itertools.combinations({name: {*of} for name, of in genes.items()}.items(), 2):
        if len(first & second) < FEW_SHARED * min(len(first), len(second)):
            examples = " and ".join(sorted(some - (first & second))[0] for some in (first, second))
            what = f"{one} and {other} share {len(first & second)} gene names ({examples})"
            hint = "prepare sets of one species that name genes alike; --species mouse maps the genes of mouse files"
            raise CellDualityError(what, code="mixed-species", where=f"sources {one}, {other}", hint=hint)


def rank_in_names_of(
    genes: frozenset[str], table: CellTable, *, source: str, top: int, min_genes: int
) -> tuple[RankedCells, dict[str, int]]:
    """Return (the cells ranked by ``genes`` alone, how many genes have no name among such by reason); none is an error.

    Mouse genes are read by their one-to-one human orthologues, if ``genes`` knows more of these.
    """
    lost: dict[str, int] = {}
    if 2 * len(known := genes.intersection(table.genes)) < len(genes):
        human, without = to_human(table.genes)
        if len(genes.intersection(filter(None, human))) > len(known):
            table, lost = replace(table, genes=tuple(gene or "" for gene in human)), without
    if genes.isdisjoint(table.genes):
        what, hint = "none of its genes is in the vocabulary", "use sets that name genes alike"
        raise CellDualityError(what, code="no-genes", where=f"source {source}", hint=hint)
    return rank_cells(table, source=source, top=top, min_genes=min_genes, genes=genes), lost


def expression_at_rank(table: CellTable, cells: NDArray[np.bool_], genes: frozenset[str], top: int) -> dict[str, Any]:
    """Return the mean expression at each rank, of the chosen ``cells`` and of ``genes`` alone: how it falls with rank.

    ``mean`` and ``cells`` have an entry for each of the ranks 1 .. ``top`` that any cell has: log1p of counts per
    10,000, or the logarithms that the table holds (``unit`` says which), and how many cells have the rank.
    """
    kept = np.array([place for place, gene in enumerate(table.genes) if gene in genes], dtype=np.int64)
    top = min(top, len(kept))
    total, count, left = np.zeros(top), np.zeros(top, dtype=np.int64), MOST_CELLS
    for logs in table.logs(cells):
        values = logs[:left, kept]
        left -= values.shape[0]
        for start, end in zip(values.indptr, values.indptr[1:], strict=False):
            own = np.sort(values.data[start:end])[::-1]
            own = own[own > 0][:top]
            total[: len(own)] += own
            count[: len(own)] += 1
        if not left:
            break
    ranks = int((count > 0).sum())
    return {
        "mean": (total[:ranks] / count[:ranks]).round(6).tolist(),
        "cells": count[:ranks].tolist(),
        "unit": "log1p of counts per 10,000" if table.counts() else "the logarithms that the set holds",
    }
