"""What is in an .h5ad file: its tables, and its matrix, read block by block and never held whole."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import anndata
import anndata.io
import h5py
import numpy as np
import pandas
import scipy.sparse
from numpy.typing import NDArray

from cellduality_plugin.errors import CellDualityError

BLOCK = 4_000_000  # values read at a time: 32 MB of float32 with their indices
CSC_BLOCKS = 4  # so many are gathered at a time of a matrix stored by column, which is read through for each part
# What h5py, anndata and scipy raise about files that are cut, corrupt or something else.
READ_ERRORS = (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError)


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what the libraries raise about a bad file into a CellDualityError."""
    try:
        yield
    except BlockingIOError as error:
        what, hint = "another program has the file open for writing", "close it there, or read a copy"
        raise CellDualityError(what, code="file-in-use", where=str(path), hint=hint) from error
    except READ_ERRORS as error:
        what = f"unreadable {path.suffix} file ({type(error).__name__}: {str(error)[:120]})"
        hint = "download the file again, or write it again (anndata: write_h5ad)"
        raise CellDualityError(what, code="unreadable-file", where=str(path), hint=hint) from error


@dataclass(frozen=True)
class StoredMatrix:
    """Cells by genes at ``key`` of an HDF5 file (as ``"X"``), dense or sparse, read :data:`BLOCK` values at a time."""

    path: Path
    key: str
    layout: Literal["csr", "csc", "dense"]
    shape: tuple[int, int]
    size: int  # how many values are stored

    @classmethod
    def find(cls, file: h5py.File, path: Path, key: str) -> StoredMatrix:
        """Return the matrix of numbers at ``key`` of an open file; sparse layouts of old anndata are known too."""
        node = file[key]
        sparse = anndata.io.sparse_dataset(node) if isinstance(node, h5py.Group) else None
        stored = node if sparse is None else sparse
        if stored.dtype.kind not in "biuf":
            what = f"the matrix does not hold numbers ({stored.dtype})"
            raise CellDualityError(what, code="not-numbers", where=str(path), hint="store a numeric matrix")
        cells, genes = map(int, stored.shape)
        size = int((node if sparse is None else node["data"]).size)
        return cls(path, key, "dense" if sparse is None else sparse.format, (cells, genes), size)

    def rows(
        self,
        keep: NDArray[np.bool_] | None = None,
        columns: NDArray[np.int64] | None = None,
        look: Callable[[Any], None] | None = None,
    ) -> Iterator[Any]:
        """Yield the rows in order, in CSR blocks of float32 or float64 without duplicate entries.

        Only rows where ``keep`` is true, and only the given ``columns``, in ascending order; None: all. ``look`` is
        shown all rows and columns of each block. A matrix stored by column is read once for every
        :data:`CSC_BLOCKS` blocks that it holds.
        """
        first = 0
        with readable(self.path), h5py.File(self.path) as file:
            readers = {"csr": self._csr_rows, "csc": self._csc_rows, "dense": self._dense_rows}
            for block in readers[self.layout](file[self.key]):
                if block.nnz and not 0 <= block.indices.min() <= block.indices.max() < self.shape[1]:
                    raise ValueError("a gene index is outside of the matrix")
                block.sum_duplicates()
                if look:
                    look(block)
                span = slice(first, first := first + block.shape[0])
                if keep is not None and not keep[span].all():
                    block = block[keep[span]]
                yield block if columns is None or len(columns) == self.shape[1] else block[:, columns]

    def read(self, keep: NDArray[np.bool_] | None = None, columns: NDArray[np.int64] | None = None) -> Any:
        """Return what :meth:`rows` yields as one CSR matrix of float32."""
        blocks = [block.astype(np.float32) for block in self.rows(keep, columns)]
        return scipy.sparse.vstack(blocks, format="csr")

    def first_values(self) -> Literal["whole", "usable", "bad"]:
        """Return whether the first values can rank genes (finite, none negative, not all 0), and are whole numbers."""
        with readable(self.path), h5py.File(self.path) as file:
            dense, node = self.layout == "dense", file[self.key]
            first = node[: self._dense_step(node)] if dense else node["data"][:BLOCK]
        usable = first.size and np.isfinite(first).all() and first.min() >= 0 and first.max() > 0
        return "bad" if not usable else "whole" if (first == np.floor(first)).all() else "usable"

    def _pointers(self, node: Any, lines: int) -> NDArray[Any]:
        """Return where each of ``lines`` rows or columns begins, if all of them lie within what is stored."""
        indptr: NDArray[Any] = node["indptr"][:]
        ends = [len(node["data"]), len(node["indices"]), int(indptr[-1])] if len(indptr) else []
        if len(indptr) != lines + 1 or indptr[0] or len(set(ends)) > 1 or (np.diff(indptr) < 0).any():
            raise ValueError("a part of the sparse matrix is missing: indptr, indices and data do not fit together")
        return indptr

    def _csr_rows(self, node: Any) -> Iterator[Any]:
        indptr = self._pointers(node, self.shape[0])
        for start, stop in _spans(indptr, BLOCK):
            entries = slice(int(indptr[start]), int(indptr[stop]))
            parts = _floats(node["data"][entries]), node["indices"][entries], indptr[start : stop + 1] - indptr[start]
            yield scipy.sparse.csr_matrix(parts, shape=(stop - start, self.shape[1]))

    def _dense_rows(self, node: Any) -> Iterator[Any]:
        step = self._dense_step(node)
        for start in range(0, self.shape[0], step):
            yield scipy.sparse.csr_matrix(_floats(node[start : start + step]))

    def _dense_step(self, node: Any) -> int:
        rows = max(1, BLOCK // max(1, self.shape[1]))
        # A chunk that is cut in two would be read and unpacked twice.
        return max(1, round(rows / node.chunks[0])) * node.chunks[0] if node.chunks else rows

    def _csc_rows(self, node: Any) -> Iterator[Any]:
        parts = range(0, max(1, node["indices"].shape[0]), BLOCK)
        per_row = np.zeros(self.shape[0], dtype=np.int64)
        for first in parts:
            per_row += np.bincount(node["indices"][first : first + BLOCK], minlength=self.shape[0])
        indptr = self._pointers(node, self.shape[1])
        for start, stop in _spans(np.concatenate([[0], np.cumsum(per_row)]), CSC_BLOCKS * BLOCK):
            found = []
            for first in parts:
                rows = node["indices"][first : first + BLOCK]
                inside = np.flatnonzero((rows >= start) & (rows < stop))
                columns = np.searchsorted(indptr, first + inside, side="right") - 1
                values = _floats(node["data"][first : first + BLOCK][inside])
                found.append((values, (rows[inside] - start).astype(np.int32), columns.astype(np.int32)))
            values, rows, columns = (np.concatenate(some) for some in zip(*found, strict=True))
            del found
            yield scipy.sparse.coo_matrix((values, (rows, columns)), shape=(stop - start, self.shape[1])).tocsr()


@dataclass(frozen=True)
class Tables:
    """What is known of the cells and of the genes of one matrix, and where that matrix is."""

    obs: pandas.DataFrame
    var: pandas.DataFrame
    matrix: StoredMatrix
    unreadable: dict[str, str]  # the columns of ``obs`` that this anndata cannot read, and why


def open_tables(path: Path, matrix: Literal["X", "raw", "counts"] = "X", layer: str | None = None) -> Tables:
    """Return the tables of an .h5ad file with the matrix that is asked for, which is not read.

    ``"counts"`` is X, or raw if only that holds whole numbers. A CellDualityError is raised if the file is unreadable,
    or the matrix or layer is not there or empty.
    """
    with readable(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old layouts and repeated names: what matters of it is checked
        with h5py.File(path, "r") as file:
            obs, var, raw_var, unreadable = _frames(file, path)
            key = _key(file, matrix, layer, path)
            stored = StoredMatrix.find(file, path, key) if key in file else None
    var = raw_var if key.startswith("raw") else var
    if stored is not None and stored.shape == (len(obs), len(var)) and 0 not in stored.shape:
        return Tables(obs, var, stored, unreadable)
    why = "missing" if stored is None else f"empty, or of another shape than obs and var: {stored.shape}"
    others = other_matrices(path, key)
    hint = f"use {' or '.join(others)}" if others else "check how the file was written, or if a filter left nothing"
    raise CellDualityError(f"the matrix {layer or matrix} is {why}", code="no-matrix", where=str(path), hint=hint)


def _frames(file: h5py.File, path: Path) -> tuple[Any, Any, Any, dict[str, str]]:
    """Return (obs, var, var of the raw matrix or None, the columns of obs that cannot be read and why)."""
    if isinstance(file["obs"], h5py.Group):
        raw = _frame(file["raw/var"], {}) if "raw/var" in file else None
        unreadable: dict[str, str] = {}
        return _frame(file["obs"], unreadable), _frame(file["var"], {}), raw, unreadable
    # Written before anndata 0.7: its own reader knows where those versions kept the categories.
    adata = anndata.read_h5ad(path, backed="r")
    try:
        return adata.obs, adata.var, adata.raw.var if adata.raw is not None else None, {}
    finally:
        adata.file.close()


def _frame(node: h5py.Group | h5py.Dataset, unreadable: dict[str, str]) -> pandas.DataFrame:
    """Return the table at ``node``; why a column cannot be read is added to ``unreadable``."""
    if "_index" not in node.attrs or node.attrs.get("encoding-version", "0.2.0") != "0.2.0":
        return anndata.io.read_elem(node)  # as anndata 0.7 has it
    columns: dict[str, Any] = {}
    for name in map(str, node.attrs["column-order"]):
        try:
            if "categories" in node[name].attrs:
                raise ValueError("its categories are kept as anndata 0.7 did, in a table that does not say so")
            columns[name] = anndata.io.read_elem(node[name])
        except Exception as error:  # of which anndata has many kinds; what is not asked for does no harm
            unreadable[name] = f"{type(error).__name__}: {str(error)[:120]}"
    index = pandas.Index(anndata.io.read_elem(node[str(node.attrs["_index"])]))
    # Not from a dictionary: an index of another length than its columns is a broken file.
    return pandas.DataFrame({name: pandas.Series(values, index=index) for name, values in columns.items()}, index=index)


def other_matrices(path: Path, asked: str) -> tuple[str, ...]:
    """Return the flags by which matrices that can rank genes are read, but the one at ``asked``; counts first."""
    found: dict[str, bool] = {}
    with readable(path), h5py.File(path) as file:
        layers = {f"layers/{name}": f"--layer {name}" for name in file.get("layers", ())}
        for key, flag in {"X": "--matrix X", "raw/X": "--matrix raw", "raw.X": "--matrix raw", **layers}.items():
            with contextlib.suppress(CellDualityError, *READ_ERRORS):
                kind = StoredMatrix.find(file, path, key).first_values() if key in file and key != asked else "bad"
                if kind != "bad":
                    found[flag] = kind == "whole"
    return tuple(sorted(found, key=lambda flag: not found[flag]))


def _key(file: h5py.File, matrix: str, layer: str | None, path: Path) -> str:
    if layer is not None:
        layers = list(file["layers"]) if "layers" in file else []
        if layer not in layers:
            hint = f"use --layer with one of: {', '.join(layers) or '(there is none)'}"
            raise CellDualityError(f"no layer {layer!r}", code="no-layer", where=str(path), hint=hint)
        return f"layers/{layer}"
    raw = "raw.X" if "raw.X" in file else "raw/X"
    if matrix == "counts":
        there = [key for key in ("X", raw) if key in file]
        return next((key for key in there if StoredMatrix.find(file, path, key).first_values() == "whole"), "X")
    return "X" if matrix == "X" else raw


def _spans(indptr: NDArray[Any], block: int) -> Iterator[tuple[int, int]]:
    """Yield (first row, row after the last) of parts of at most ``block`` values, or of one row with more."""
    start, last = 0, len(indptr) - 1
    while start < last:
        stop = int(np.searchsorted(indptr, indptr[start] + block, side="right")) - 1
        stop = min(max(stop, start + 1), last)
        yield start, stop
        start = stop


def _floats(values: NDArray[Any]) -> NDArray[Any]:
    """Return the values in the smallest float type for arithmetic that holds each of them exactly."""
    if values.dtype in (np.float32, np.float64):
        return values
    return values.astype(np.float32 if values.dtype.itemsize <= 2 else np.float64)
