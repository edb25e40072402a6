"""From a matrix to ranked cells."""

from __future__ import annotations

import re
from collections.abc import Collection, Container, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.cell_sentences import Cell, name_order
from cellduality_plugin.errors import CellDualityError
from data_prep.h5ad.loaders import Loaded

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame

FEW_GENES = "cell with too few expressed genes"
UNSPEAKABLE_GENE = "gene whose name is empty or holds white space, a comma or an angle bracket"


def speakable(gene: str) -> bool:
    """Return whether a gene's name survives being written into a cell sentence and read back.

    Examples
    --------
    >>> [speakable(name) for name in ("HLA-DRA", "MT-CO1", "IFI 6", "A,B", "<answer>", "")]
    [True, True, False, False, False, False]
    """
    return re.fullmatch(r"[^\s,<>]+", gene) is not None


@dataclass(frozen=True)
class RankedCells:
    """The highest genes of many cells, in a few bytes a gene.

    Parameters
    ----------
    source
        The name of the set: the first part of every cell's id.
    names
        Gene names, sorted.
    top
        int32, cells by K: indices of ``names``, descending by expression, filled up with -1.
    obs
        What is known of each cell, by its name.
    expressed
        The genes that any labelled cell expresses, sorted by name.
    drops
        How many genes and cells were left out, by reason.
    """

    source: str
    names: tuple[str, ...]
    top: NDArray[np.int32]
    obs: DataFrame
    expressed: tuple[str, ...]
    drops: dict[str, int]

    def __len__(self) -> int:
        return len(self.top)

    def __iter__(self) -> Iterator[Cell]:
        return map(self.cell, range(len(self)))

    @property
    def rows(self) -> dict[str, int]:
        """The row of each cell, by its id: set and barcode."""
        return {f"{self.source}/{barcode}": row for row, barcode in enumerate(self.obs.index)}

    def known(self, columns: Collection[str]) -> dict[str, dict[str, str]]:
        """Return what stands in ``columns`` of ``obs``, as text, by the id of each cell."""
        table = {column: self.obs[column].astype(str).to_list() for column in columns}
        return {name: {column: table[column][row] for column in columns} for name, row in self.rows.items()}

    def genes(self, row: int) -> tuple[str, ...]:
        """Return the genes of the cell in that row, descending by expression."""
        return tuple(self.names[place] for place in self.top[row].tolist() if place >= 0)

    def cell(self, row: int) -> Cell:
        """Return the cell in that row, with all that is known of it."""
        known = {str(name): str(self.obs[name].iat[row]) for name in self.obs.columns}
        return Cell(f"{self.source}/{self.obs.index[row]}", self.genes(row), known)

    def sentences(self) -> list[str]:
        """Return the cell sentence of every cell."""
        from data_prep.ranking import write_sentences

        return write_sentences(self.top, list(self.names))


def rank_cells(
    cells: AnnData | Loaded, *, source: str, top: int, min_genes: int = 8, genes: Container[str] | None = None
) -> RankedCells:
    """Return the ranked cells of a matrix, ties by name; one of a file is read block by block and never held whole.

    Parameters
    ----------
    cells
        Cells by genes, non-negative: :func:`~data_prep.h5ad.loaders.load_h5ad`'s result, or AnnData.
        Counts and log1p values of a cell rank alike.
    source
        The name of the set: the first part of every cell's id.
    top
        K, how many genes a cell sentence holds at the most.
    min_genes
        Cells with fewer expressed genes are left out.
    genes
        The genes to speak of; None: all.

    Raises
    ------
    CellDualityError
        If no cell is left.
    """
    from data_prep.ranking import rank_rows

    names, order, unspeakable = _tie_order(gene_names(cells), genes)
    ranked = np.empty((len(cells.obs), top), dtype=np.int32)
    expressed = np.zeros(len(order), dtype=bool)
    first = 0
    for block in blocks_of(cells):
        _, found = rank_rows(block, order, top, out=ranked[first : first + block.shape[0]])
        first += block.shape[0]
        expressed |= found
    enough = (ranked[:, min_genes - 1] >= 0) if min_genes <= top else np.zeros(len(ranked), dtype=bool)
    if not enough.any():
        hint = "lower --min-genes or check the matrix"
        raise CellDualityError(f"no cell has {min_genes} expressed genes", where=source, hint=hint)
    drops = {UNSPEAKABLE_GENE: unspeakable, FEW_GENES: int((~enough).sum())}
    obs = cells.obs
    if drops[FEW_GENES]:  # an atlas is not copied for nothing
        ranked, obs = ranked[enough], obs[enough]
    spoken = tuple(name for name, found in zip(names, expressed.tolist(), strict=False) if found)
    return RankedCells(source, names, ranked, obs, spoken, {why: n for why, n in drops.items() if n})


def gene_names(cells: AnnData | Loaded) -> list[str]:
    """Return the names of the genes, in the order of the matrix."""
    return [str(name) for name in (cells.genes if isinstance(cells, Loaded) else cells.var_names)]


def blocks_of(cells: AnnData | Loaded) -> Iterator[Any]:
    """Yield CSR blocks of rows without duplicate entries, in the order of ``obs``."""
    import scipy.sparse

    if isinstance(cells, Loaded):
        yield from cells.blocks()
        return
    block = scipy.sparse.csr_matrix(cells.X)
    if not block.has_canonical_format:
        block = block.copy()  # the caller's matrix stays as it is
        block.sum_duplicates()
    yield block


def _tie_order(genes: list[str], wanted: Container[str] | None) -> tuple[tuple[str, ...], NDArray[np.int32], int]:
    """Return (the sorted names that are spoken of, each gene's place among them or -1, how many cannot be spoken)."""
    asked = [place for place, gene in enumerate(genes) if wanted is None or gene in wanted]
    usable = [place for place in asked if speakable(genes[place])]
    names = [genes[place] for place in usable]
    order = np.full(len(genes), -1, dtype=np.int32)
    order[usable] = name_order(names)
    return tuple(sorted(names)), order, len(asked) - len(usable)
