"""A new .h5ad file: its cells as ranked genes, and a copy of it with what was found."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    cells: AnnData | CellTable, genes: frozenset[str], notes: Mapping[str, Any], source: str, needs: Iterable[str] = ()
) -> tuple[RankedCells, float]:
    """Return (the cells as the model reads them, the share of its genes that they have).

    Cells with fewer than ``min_genes`` of its genes are left out.

    Raises
    ------
    CellDualityError
        If they share no gene, no cell is left, or a column that the question shows is missing.
    """
    table = cells if isinstance(cells, CellTable) else CellTable.of(cells)
    if missing := sorted(set(needs) - set(table.obs)):
        raise CellDualityError(
            f"no column {missing[0]!r}, which the question shows",
            code="unknown-column",
            where=f"{source}, obs",
            hint=f"there is {', '.join(map(str, table.obs)) or 'none'}",
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


def refuse_taken_keys(obs: Iterable[str], key: str) -> None:
    """Raise if a column of ``obs`` has the name of one that would be written."""
    if taken := sorted(set(obs) & set(columns_of(key))):
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
    from anndata.io import read_elem, write_elem

    with whole_file(out, "w+b") as stream, source.open("rb") as original:
        shutil.copyfileobj(original, stream)
        with h5py.File(stream, "r+") as file:
            table = read_elem(file["obs"])
            for column, values in obs.items():
                table[column] = values
            write_elem(file, "obs", table)
            for group, items in (("obsm", obsm), ("uns", uns)):
                if group not in file:
                    write_elem(file, group, {})
                for key, value in items.items():
                    write_elem(file[group], key, value)
