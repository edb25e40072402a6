"""HDF5 files of any size, read block by block: only what is asked for is ever in memory."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellduality_plugin.errors import CellDualityError

if TYPE_CHECKING:
    from anndata import AnnData

BLOCK_ROWS = 4096


@contextlib.contextmanager
def backed(path: Path) -> Iterator[AnnData]:
    """Open an .h5ad file with its matrix left on the disk.

    Raises
    ------
    CellDualityError
        If it is no .h5ad file.
    """
    import anndata

    try:
        with warnings.catch_warnings():  # of old layouts, and of names that repeat: both are dealt with
            warnings.simplefilter("ignore")
            adata = anndata.read_h5ad(path, backed="r")
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise CellDualityError(
            f"unreadable .h5ad file ({type(error).__name__}: {str(error)[:120]})",
            where=str(path),
            mend="remove it and fetch the set again",
        ) from error
    try:
        yield adata
    finally:
        adata.file.close()


def sparse_rows(matrix: Any, rows: np.ndarray, columns: np.ndarray | None = None) -> Any:
    """Return some rows and columns of a matrix on the disk, sparse by row.

    Parameters
    ----------
    matrix
        What h5py or a backed AnnData has: dense, or sparse by row. It is read in blocks of :data:`BLOCK_ROWS`.
    rows
        Which rows, in ascending order.
    columns
        Which columns, in ascending order; all by default.
    """
    import scipy.sparse

    blocks = []
    for start in range(0, matrix.shape[0], BLOCK_ROWS):
        wanted = rows[np.searchsorted(rows, start) : np.searchsorted(rows, start + BLOCK_ROWS)] - start
        if len(wanted):
            block = matrix[start : start + BLOCK_ROWS]
            block = block[wanted] if columns is None else block[wanted][:, columns]
            blocks.append(scipy.sparse.csr_matrix(block, dtype=np.float32))
    if not blocks:
        width = matrix.shape[1] if columns is None else len(columns)
        return scipy.sparse.csr_matrix((0, width), dtype=np.float32)
    return scipy.sparse.vstack(blocks, format="csr")


def whole_numbers(matrix: Any) -> bool:
    """Return whether the first rows of a matrix hold nothing but whole numbers, as counts do."""
    import scipy.sparse

    data = scipy.sparse.csr_matrix(matrix[: min(matrix.shape[0], 256)]).data
    return bool((data == np.floor(data)).all())


def obs_column(adata: AnnData, column: str, path: Path) -> Any:
    """Return a column of ``obs`` as plain values.

    Raises
    ------
    CellDualityError
        If there is none of that name.
    """
    if column not in adata.obs:
        raise CellDualityError(
            f"no column {column!r} in obs",
            where=str(path),
            mend=f"check that the file is the published one; it has {', '.join(map(str, adata.obs.columns))[:200]}",
        )
    return adata.obs[column].astype(object).to_numpy()


def ready_cells(files: Mapping[str, Path], name: str, column: str) -> tuple[Any, Any, Any, Any] | None:
    """Return (cells by genes, names of the cells, of the genes, ``column``) of ``name``.h5ad; None if it is not there.

    Raises
    ------
    CellDualityError
        If it is no .h5ad file, or has no such column.
    """
    path = files.get(f"{name}.h5ad")
    if path is None:
        return None
    with backed(path) as adata:
        values = sparse_rows(adata.X, np.arange(adata.n_obs))
        return values, adata.obs_names.to_numpy(), adata.var_names.to_numpy(), obs_column(adata, column, path)
