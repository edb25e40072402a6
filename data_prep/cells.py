"""From a matrix to ranked cells."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.cell_sentences import Cell, name_order
from cellduality_plugin.errors import CellDualityError

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame

    from data_prep.h5ad.loaders import Loaded

FEW_GENES = "cell with too few expressed genes"
UNSPEAKABLE_GENE = "gene whose name is empty or holds white space, a comma or an angle bracket"

TieRule: TypeAlias = Literal["name", "shuffle"]
"""How equal values are ordered: by gene name, or by one seeded shuffle of the genes."""

_SPEAKABLE = re.compile(r"[^\s,<>]+")


def speakable(gene: str) -> bool:
    """Return whether a gene's name survives being written into a cell sentence and read back.

    Examples
    --------
    >>> [speakable(name) for name in ("HLA-DRA", "MT-CO1", "IFI 6", "A,B", "<answer>", "")]
    [True, True, False, False, False, False]
    """
    return _SPEAKABLE.fullmatch(gene) is not None


@dataclass(frozen=True)
class RankedCells:
    """The highest genes of many cells, in a few bytes a gene.

    Parameters
    ----------
    source
        The name of the set: the first part of every cell's id.
    names
        Gene names, in the order that breaks ties.
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

    def cell(self, row: int) -> Cell:
        """Return the cell in that row."""
        genes = tuple(self.names[place] for place in self.top[row].tolist() if place >= 0)
        known = {str(name): str(self.obs[name].iat[row]) for name in self.obs.columns}
        return Cell(f"{self.source}/{self.obs.index[row]}", genes, known)

    def sentences(self) -> list[str]:
        """Return the cell sentence of every cell."""
        from data_prep.ranking import write_sentences

        return write_sentences(self.top, list(self.names))


def rank_cells(
    cells: AnnData | Loaded,
    *,
    source: str,
    top: int,
    min_genes: int = 8,
    ties: TieRule = "name",
    seed: int = 0,
    threads: int = 1,
) -> RankedCells:
    """Return the ranked cells of a matrix; one of a file is read block by block and never held whole.

    Parameters
    ----------
    cells
        Cells by genes, non-negative: :func:`~data_prep.h5ad.loaders.load_h5ad`'s result, or AnnData whose ``X`` is CSR.
        Counts and log1p values of a cell rank alike.
    source
        The name of the set: the first part of every cell's id.
    top
        K, how many genes a cell sentence holds at the most.
    min_genes
        Cells with fewer expressed genes are left out.
    ties, seed
        The order of equal values, and the seed of its shuffle.
    threads
        How many threads share the ranking.

    Raises
    ------
    CellDualityError
        If no cell is left.
    """
    from data_prep.ranking import rank_rows

    genes, blocks = _blocks(cells)
    names, order, unspeakable = _tie_order(genes, ties, seed)
    ranked = np.empty((len(cells.obs), top), dtype=np.int32)
    expressed = np.zeros(len(genes), dtype=bool)
    first = 0
    for block in blocks:
        _, found = rank_rows(block, order, top, threads=threads, out=ranked[first : first + block.shape[0]])
        first += block.shape[0]
        expressed |= found
    enough = (ranked[:, min_genes - 1] >= 0) if min_genes <= top else np.zeros(len(ranked), dtype=bool)
    if not enough.any():
        raise CellDualityError(
            f"no cell has {min_genes} expressed genes",
            where=source,
            mend="lower --min-genes or check the matrix",
        )
    drops = {UNSPEAKABLE_GENE: unspeakable, FEW_GENES: int((~enough).sum())}
    obs = cells.obs
    if drops[FEW_GENES]:  # an atlas is not copied for nothing
        ranked, obs = ranked[enough], obs[enough]
    spoken = sorted(name for name, found in zip(names, expressed.tolist(), strict=False) if found)
    return RankedCells(source, names, ranked, obs, tuple(spoken), {why: n for why, n in drops.items() if n})


def _blocks(cells: AnnData | Loaded) -> tuple[list[str], Iterable[Any]]:
    """Return (gene names, CSR blocks of rows without duplicate entries)."""
    import scipy.sparse

    from data_prep.h5ad.loaders import Loaded

    if isinstance(cells, Loaded):
        return list(cells.genes), cells.blocks()
    block = scipy.sparse.csr_matrix(cells.X)
    if not block.has_canonical_format:
        block = block.copy()  # the caller's matrix stays as it is
        block.sum_duplicates()
    return [str(name) for name in cells.var_names], [block]


def _tie_order(genes: list[str], ties: TieRule, seed: int) -> tuple[tuple[str, ...], NDArray[np.int32], int]:
    """Return (the names in the order that breaks ties, each gene's place in it or -1, how many have none)."""
    usable = np.flatnonzero([speakable(gene) for gene in genes])
    names = [genes[place] for place in usable]
    places = name_order(names)
    if ties == "shuffle":  # of the sorted names, so that the order of columns does not matter
        places = np.random.default_rng(seed).permutation(len(names))[places]
    order = np.full(len(genes), -1, dtype=np.int32)
    order[usable] = places
    ordered = [""] * len(names)
    for place, name in zip(places.tolist(), names, strict=True):
        ordered[place] = name
    return tuple(ordered), order, len(genes) - len(names)
