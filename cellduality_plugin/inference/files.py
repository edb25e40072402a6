"""A new .h5ad file: what it may not replace, and a copy of it with what was found."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import whole_file

PROVENANCE = "cellduality"
"""The key of ``uns`` by which a file of ours is known."""


def refuse_taken(out: Path, source: Path) -> None:
    """Raise if ``out`` is the input, or a file that was not written by this command."""
    what = "would replace the input" if out.resolve() == source.resolve() else ""
    if not what and out.exists() and not _is_ours(out):
        what = "a file that we did not write is there"
    if what:
        raise CellDualityError(what, code="file-taken", where=str(out), hint="choose another --out, or move it away")


def _is_ours(path: Path) -> bool:
    import h5py

    try:
        with h5py.File(path) as file:
            return f"uns/{PROVENANCE}" in file
    except OSError:
        return False


def refuse_taken_keys(obs: Iterable[str], columns: Iterable[str]) -> None:
    """Raise if a column of ``obs`` has the name of one of ``columns``, which would be written."""
    if taken := sorted(set(obs) & set(columns)):
        what = f"obs has a column {taken[0]!r} already"
        raise CellDualityError(what, code="key-taken", where="--key-added", hint="give another name")


def write_copy(
    source: Path, out: Path, obs: Mapping[str, Any], obsm: Mapping[str, Any], uns: Mapping[str, Any]
) -> None:
    """Write ``out``, whole or not at all: ``source`` with further columns of ``obs``, ``obsm`` and ``uns``.

    The rest is copied as bytes: matrices of any size are never read.
    """
    import h5py
    from anndata.io import write_elem

    with whole_file(out, "w+b") as stream, source.open("rb") as original:
        shutil.copyfileobj(original, stream)
        with h5py.File(stream, "r+") as file:
            _add_columns(file, obs)
            for group, items in (("obsm", obsm), ("uns", uns)):
                if group not in file:
                    write_elem(file, group, {})
                for key, value in items.items():
                    write_elem(file[group], key, value)


def _add_columns(file: Any, columns: Mapping[str, Any]) -> None:
    """Add ``columns`` to ``obs``, of which the others stay as they are, readable by this anndata or not."""
    from anndata.io import read_elem, write_elem

    table = file["obs"]
    if table.attrs.get("encoding-version") == "0.2.0":
        for column, values in columns.items():
            write_elem(table, column, values)
        table.attrs["column-order"] = np.array([*table.attrs["column-order"], *columns], dtype=object)
    else:  # of an older layout, which is brought up to date
        write_elem(file, "obs", read_elem(table).assign(**columns))
