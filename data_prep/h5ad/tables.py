"""The tables and the matrix of an .h5ad file, without the numbers."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import h5py
import pandas

from cellduality_plugin.errors import CellDualityError
from data_prep.h5ad.matrices import StoredMatrix, told_when_unreadable
from data_prep.sources import Matrix


@dataclass(frozen=True)
class Tables:
    """What is known of the cells (``obs``) and of the genes of one matrix (``var``), and where that matrix is."""

    obs: pandas.DataFrame
    var: pandas.DataFrame
    matrix: StoredMatrix


def open_tables(path: Path, matrix: Matrix, layer: str | None) -> Tables:
    """Return the tables of an .h5ad file with the matrix that is asked for, which is not read.

    Raises
    ------
    CellDualityError
        If the file is unreadable, or the matrix or layer is not there or empty.
    """
    with told_when_unreadable(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old layouts and repeated names: what matters of it is checked
        with h5py.File(path, "r") as file:
            obs, var, raw_var = _frames(file, path)
            key, name = _key(file, matrix, layer, path), layer or matrix
            if key not in file:
                raise _no_matrix(f"the matrix {name} is missing", path)
            stored = StoredMatrix.find(file, path, key)
    var = raw_var if key.startswith("raw") else var
    if 0 in stored.shape:
        raise _no_matrix(f"the matrix {name} is empty: {stored.shape[0]} cells x {stored.shape[1]} genes", path)
    if stored.shape != (len(obs), len(var)):
        raise _no_matrix(f"the matrix {name} is of another shape than obs and var: {stored.shape}", path)
    return Tables(obs, var, stored)


def _frames(file: h5py.File, path: Path) -> tuple[Any, Any, Any]:
    """Return (obs, var, var of the raw matrix or None)."""
    if isinstance(file["obs"], h5py.Group):
        raw = anndata.io.read_elem(file["raw/var"]) if "raw/var" in file else None
        return anndata.io.read_elem(file["obs"]), anndata.io.read_elem(file["var"]), raw
    # Written before anndata 0.7: its own reader knows where those versions kept the categories.
    adata = anndata.read_h5ad(path, backed="r")
    try:
        return adata.obs, adata.var, adata.raw.var if adata.raw is not None else None
    finally:
        adata.file.close()


def _key(file: h5py.File, matrix: Matrix, layer: str | None, path: Path) -> str:
    if layer is not None:
        layers = list(file["layers"]) if "layers" in file else []
        if layer not in layers:
            known = ", ".join(layers) or "(there is none)"
            raise CellDualityError(f"no layer {layer!r}", where=str(path), mend=f"use --layer with one of: {known}")
        return f"layers/{layer}"
    if matrix == "X":
        return "X"
    for key in ("raw/X", "raw.X"):
        if key in file:
            return key
    raise CellDualityError("the file has no raw matrix", where=str(path), mend="use --matrix X")


def _no_matrix(what: str, path: Path) -> CellDualityError:
    return CellDualityError(
        what, where=str(path), mend="check how the file was written, or whether a filter left nothing over"
    )
