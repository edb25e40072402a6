"""Where cells come from: named sets that a Python package ships, or anybody's .h5ad file."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from cellduality_plugin.errors import CellDualityError

Expression: TypeAlias = Literal["auto", "log1p", "counts"]
"""What the numbers are: log1p of counts per 10,000, raw counts, or whichever of the two they look like."""

Matrix: TypeAlias = Literal["X", "raw"]
"""Which matrix of the file holds them."""


@dataclass(frozen=True)
class Source:
    """One set of cells.

    Parameters
    ----------
    name
        How it is called on the command line and at the start of every cell's id.
    package
        The Python package that ships the file; empty if ``file`` is a path of its own.
    file
        The file, relative to the package's folder.
    label_column
        The column of ``obs`` with the cell types.
    matrix, expression
        Which matrix to read, and what its numbers are.
    note
        What the set is and where it was published.
    """

    name: str
    package: str
    file: str
    label_column: str
    matrix: Matrix = "X"
    expression: Expression = "auto"
    note: str = ""

    def path(self) -> Path:
        """Return where the file is, without importing the package that ships it.

        Raises
        ------
        CellDualityError
            If the package is not installed or the file is not there.
        """
        path = Path(self.file)
        if self.package:
            spec = importlib.util.find_spec(self.package)
            if spec is None or not spec.submodule_search_locations:
                raise CellDualityError(
                    f"the data set {self.name!r} comes with {self.package}, which is not installed",
                    where=f"source {self.name}",
                    mend=f"pip install {self.package}",
                )
            path = Path(next(iter(spec.submodule_search_locations))) / path
        if not path.is_file():
            raise CellDualityError("no such file", where=str(path), mend="check the path of the .h5ad file")
        return path


SOURCES: dict[str, Source] = {
    "pbmc68k_reduced": Source(
        name="pbmc68k_reduced",
        package="scanpy",
        file="datasets/10x_pbmc68k_reduced.h5ad",
        label_column="bulk_labels",
        matrix="raw",
        expression="log1p",
        note="700 human blood cells, 765 genes, 10 types; Zheng et al. 2017, doi:10.1038/ncomms14049",
    ),
}


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
        return replace(
            known,
            label_column=label_column or known.label_column,
            matrix=matrix or known.matrix,
            # Another matrix than the usual one may hold another kind of number.
            expression=known.expression if expression == "auto" and matrix in (None, known.matrix) else expression,
        )
    if not name.endswith(".h5ad"):
        raise CellDualityError(
            f"no data set {name!r}",
            where="source",
            mend=f"use one of {', '.join(SOURCES)}, or a path to an .h5ad file",
        )
    if not label_column:
        raise CellDualityError(
            "no label column given",
            where=name,
            mend="name the column of obs with the cell types: --label-column NAME",
        )
    # White space would make ids that no table of results can be split on.
    stem = "_".join(Path(name).stem.split())
    return Source(stem, "", name, label_column, matrix or "X", expression)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
