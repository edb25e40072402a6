"""Where cells come from: a published set that can be read like anybody's .h5ad file, or such a file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from cellduality_plugin.errors import CellDualityError
from data_prep.registry import DATASETS

Expression: TypeAlias = Literal["auto", "log1p", "counts"]
"""What the numbers are: log1p of counts per 10,000, raw counts, or whichever of the two they look like."""

Matrix: TypeAlias = Literal["X", "raw"]
"""Which matrix of the file holds them."""


@dataclass(frozen=True)
class Source:
    """An .h5ad file and what to read of it; without a ``file`` that of the published set called ``name``."""

    name: str
    label_column: str
    matrix: Matrix = "X"
    expression: Expression = "auto"
    file: str = ""

    def path(self) -> Path:
        """Return where the file is; that of a published set is fetched if it is not at hand.

        Raises
        ------
        CellDualityError
            If the file is not there, or cannot be fetched.
        """
        if self.file:
            path = Path(self.file)
            if not path.is_file():
                raise CellDualityError("no such file", where=str(path), hint="check the path of the .h5ad file")
            return path
        from data_prep.download.fetching import only_file

        return only_file(DATASETS[self.name])


SOURCES = {name: Source(name, **dataset.as_file) for name, dataset in DATASETS.items() if dataset.as_file}
"""The published sets that are read like a file of one's own, with what is known of them."""


def find_source(
    name: str,
    *,
    label_column: str | None = None,
    matrix: Matrix | None = None,
    expression: Expression = "auto",
) -> Source:
    """Return the set called ``name``, or the one in the .h5ad file at that path.

    Parameters
    ----------
    name
        A key of :data:`SOURCES`, or a path that ends in ``.h5ad``.
    label_column, matrix, expression
        What to read in place of what the set is known for. A file of one's own needs a ``label_column``.

    Raises
    ------
    CellDualityError
        If there is no such set, or a file is given without its label column.

    Examples
    --------
    >>> find_source("pbmc68k_reduced").label_column
    'bulk_labels'
    >>> find_source("atlas/liver.h5ad", label_column="celltype").name
    'liver'
    """
    if name in SOURCES:
        known = SOURCES[name]
        if expression == "auto" and matrix in (None, known.matrix):  # another matrix may hold another kind of number
            expression = known.expression
        column, matrix = label_column or known.label_column, matrix or known.matrix
        return replace(known, label_column=column, matrix=matrix, expression=expression)
    if not name.endswith(".h5ad"):
        hint = f"use one of {', '.join(SOURCES)}, or a path to an .h5ad file"
        raise CellDualityError(f"no data set {name!r}", where="source", hint=hint)
    if not label_column:
        hint = "name the column of obs with the cell types: --label-column NAME"
        raise CellDualityError("no label column given", where=name, hint=hint)
    # White space would make ids that no table of results can be split on.
    return Source("_".join(Path(name).stem.split()), label_column, matrix or "X", expression, name)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
