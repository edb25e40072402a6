"""From a matrix to ranked cells."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from cellduality_plugin.cell_sentences import Cell, name_order, rank_genes
from cellduality_plugin.errors import CellDualityError

if TYPE_CHECKING:
    from anndata import AnnData

FEW_GENES = "cell with too few expressed genes"
UNSPEAKABLE_GENE = "gene whose name is empty or holds white space, a comma or an angle bracket"


def speakable(gene: str) -> bool:
    """Return whether a gene's name survives being written into a cell sentence and read back.

    Examples
    --------
    >>> [speakable(name) for name in ("HLA-DRA", "MT-CO1", "IFI 6", "A,B", "<answer>", "")]
    [True, True, False, False, False, False]
    """
    return gene.split() == [gene] and not set(gene) & set(",<>")


def ranked_cells(
    adata: AnnData, *, source: str, top: int, min_genes: int = 8
) -> tuple[list[Cell], tuple[str, ...], dict[str, int]]:
    """Return (cells, names of all expressed genes in order, what was left out by reason).

    Parameters
    ----------
    adata
        Cells by genes; ``X`` sparse by row, non-negative, and ``obs["cell_type"]`` filled.
    source
        The name of the set: the first part of every cell's id.
    top
        K, how many genes a cell sentence holds at the most. Equal values are ranked by gene name.
    min_genes
        Cells with fewer expressed genes are left out.

    Raises
    ------
    CellDualityError
        If no cell is left.
    """
    drops: Counter[str] = Counter()
    names = [str(name) for name in adata.var_names]
    usable = np.array([speakable(name) for name in names])
    drops[UNSPEAKABLE_GENE] = int((~usable).sum())
    values = adata.X[:, usable].tocsr()
    names = [name for name, good in zip(names, usable, strict=True) if good]
    ties = name_order(names)

    cells = []
    for row, (barcode, label) in enumerate(zip(adata.obs_names, adata.obs["cell_type"], strict=True)):
        span = slice(values.indptr[row], values.indptr[row + 1])
        columns = rank_genes(values.data[span], values.indices[span], ties, top)
        if len(columns) < min_genes:
            drops[FEW_GENES] += 1
            continue
        genes = tuple(names[column] for column in columns)
        cells.append(Cell(f"{source}/{barcode}", genes, {"cell_type": str(label)}))
    if not cells:
        raise CellDualityError(
            f"no cell has {min_genes} expressed genes",
            where=source,
            mend="lower --min-genes or check the matrix",
        )
    expressed = sorted(names[column] for column in np.flatnonzero(np.bincount(values.indices, minlength=len(names))))
    return cells, tuple(expressed), {reason: count for reason, count in drops.items() if count}
