"""Made-up cells of any number and width, for benchmarks."""

from __future__ import annotations

from typing import Any

import numpy as np

SEED = 42


def toy_cells(cells: int, genes: int, per_cell: int, *, counts: bool = True) -> Any:
    """Return a CSR matrix in which every cell has ``per_cell`` genes, one from each of as many strata of columns."""
    import scipy.sparse

    rng = np.random.default_rng(SEED)
    indptr = np.arange(cells + 1, dtype=np.int64) * per_cell
    indices, data = np.empty(cells * per_cell, np.int32), np.empty(cells * per_cell, np.float32)
    for first in range(0, cells, 1000):
        part = slice(first * per_cell, min(first + 1000, cells) * per_cell)
        rows = min(first + 1000, cells) - first
        indices[part], data[part] = some_rows(rows, genes, per_cell, rng)
        if not counts:  # no two values of a cell alike, so that no tie rule matters
            data[part] = (rng.permuted(np.tile(np.arange(1, per_cell + 1), (rows, 1)), axis=1) / 256).ravel()
    matrix = scipy.sparse.csr_matrix((data, indices, indptr), shape=(cells, genes))
    matrix.has_canonical_format = True
    return matrix


def some_rows(rows: int, genes: int, per_cell: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """Return (gene indices, counts) of so many cells, flat; most counts are 1, as in real cells."""
    width = genes // per_cell
    strata = np.arange(per_cell, dtype=np.int32) * width
    indices = strata + rng.integers(0, width, size=(rows, per_cell), dtype=np.int32)
    counts = 1 + (-np.log2(rng.random((rows, per_cell), dtype=np.float32) + 1e-7) * 1.2).astype(np.int32)
    return indices.ravel(), counts.ravel().astype(np.float32)


def gene_names(genes: int) -> list[str]:
    """Return names that sort in another order than their columns."""
    return [f"GENE{number}" for number in np.random.default_rng(SEED).permutation(genes)]


def adata_of(matrix: Any, names: list[str]) -> Any:
    """Return the matrix with names, as both conversions take it."""
    import anndata
    import pandas

    obs = pandas.DataFrame(index=[f"c{row}" for row in range(matrix.shape[0])])
    return anndata.AnnData(X=matrix, obs=obs, var=pandas.DataFrame(index=names))
