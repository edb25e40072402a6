"""A new .h5ad file: its cells as ranked genes, and a copy of it with what was found."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import whole_file
from data_prep.cells import CellTable, RankedCells, rank_cells

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame

PROVENANCE = "cellduality"
"""The key of ``uns`` by which a file of ours is known."""

LITTLE_SHARED = 0.5


def readable_cells(
    cells: AnnData | CellTable,
    genes: frozenset[str],
    notes: Mapping[str, Any],
    source: str,
    needs: Iterable[str] = (),
    given: Mapping[str, str] | None = None,
) -> tuple[RankedCells, float]:
    """Return (the cells as the model reads them, the share of its genes that they have).

    Cells with fewer than ``min_genes`` of its genes are left out. ``given`` are columns with one value for all cells.

    Raises
    ------
    CellDualityError
        If they share no gene, no cell is left, or a column that the question shows is missing.
    """
    table = cells if isinstance(cells, CellTable) else CellTable.of(cells)
    if given:
        refuse_unshown(given, needs)
        table = replace(table, obs=table.obs.assign(**given))
    if missing := sorted(set(needs) - set(table.obs)):
        raise CellDualityError(
            f"no column {missing[0]!r}, which the question shows",
            code="unknown-column",
            where=f"{source}, obs",
            hint=f"there is {', '.join(map(str, table.obs)) or 'none'}; or give it one value: --set {missing[0]}=VALUE",
        )
    shared = genes.intersection(table.genes)
    if not shared:
        raise CellDualityError(
            "none of its genes is one that the model knows",
            code="no-shared-genes",
            where=source,
            hint="name genes by their symbols (--gene-symbols COLUMN), or say --species mouse",
        )
    ranked = rank_cells(table, source=source, top=notes["top_genes"], min_genes=notes["min_genes"], genes=genes)
    return ranked, len(shared) / len(genes)


def refuse_unshown(given: Iterable[str], needs: Iterable[str]) -> None:
    """Raise if a column is ``given`` that the question does not show."""
    if unknown := sorted(set(given) - set(needs)):
        hint = f"it shows {', '.join(needs) or 'nothing but the cell'}"
        raise CellDualityError(f"the question shows no {unknown[0]!r}", code="unshown-value", where="--set", hint=hint)


def refuse_taken(out: Path, source: Path) -> None:
    """Raise if ``out`` is the input, or a file that was not written by this command."""
    if out.resolve() == source.resolve():
        raise CellDualityError(
            "would replace the input", code="file-taken", where=str(out), hint="choose another --out"
        )
    if out.exists() and not _is_ours(out):
        hint = "choose another --out, or move it away"
        raise CellDualityError("a file that we did not write is there", code="file-taken", where=str(out), hint=hint)


def _is_ours(path: Path) -> bool:
    import h5py

    try:
        with h5py.File(path) as file:
            return f"uns/{PROVENANCE}" in file
    except OSError:
        return False


def refuse_taken_keys(obs: Iterable[str], key: str, columns: Iterable[str] | None = None) -> None:
    """Raise if a column of ``obs`` has the name of one that would be written; by default those of an annotation."""
    if taken := sorted(set(obs) & set(columns_of(key) if columns is None else columns)):
        raise CellDualityError(
            f"obs has a column {taken[0]!r} already", code="key-taken", where="--key-added", hint="give another name"
        )


def obs_of(path: Path) -> DataFrame:
    """Return ``obs`` of the file in ``path``."""
    from data_prep.h5ad.matrices import open_tables

    return open_tables(path).obs


def columns_of(key: str) -> dict[str, str]:
    """Return {column of ``obs``: column of an annotation's table}.

    Examples
    --------
    >>> list(columns_of("type"))
    ['type', 'type_confidence', 'type_votes', 'type_reasoning', 'type_set']
    """
    return {key: "label", **{f"{key}_{name}": name for name in ("confidence", "votes", "reasoning", "set")}}


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
