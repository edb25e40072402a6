"""Text tables of genes by cells, as GEO has them, read into a sparse matrix block by block."""

from __future__ import annotations

import csv
import gzip
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from cellduality_plugin.errors import CellDualityError

BLOCK_VALUES = 20_000_000
"""Values that are in memory as a dense block at a time: 160 MB."""


@dataclass(frozen=True)
class Table:
    """A text table without its numbers: where it is, how its fields are separated, and its first lines."""

    path: Path
    separator: str
    header: tuple[str, ...]
    width: int
    """Fields of the second line: one more than the header has if the header does not name the first column."""


def open_text(path: Path) -> IO[str]:
    """Open a text file that may be packed with gzip, whatever it is called."""
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rt", encoding="utf-8", newline="") if packed else path.open(encoding="utf-8", newline="")


def open_table(path: Path, separator: str) -> Table:
    """Return the table in a file, after a look at its first two lines.

    Raises
    ------
    CellDualityError
        If it has no two lines, or is no text.
    """
    with _told(path), open_text(path) as stream:
        lines = list(itertools.islice(csv.reader(stream, delimiter=separator), 2))
    if len(lines) < 2 or len(lines[1]) < 2:
        raise _misshapen(path, "it has no two lines of two fields")
    return Table(path, separator, tuple(lines[0]), len(lines[1]))


def read_rows(path: Path, separator: str, *, header: bool = True, skip: int = 0) -> list[dict[str, str]]:
    """Return the lines of a small table as {column: value}.

    A header that is one name short, as R writes it, does not name the first column: that is ``""`` then. Without a
    header, columns are named ``"0"``, ``"1"``, and so on.

    Raises
    ------
    CellDualityError
        If the table is empty or a line has another number of fields than the first.
    """
    with _told(path), open_text(path) as stream:
        lines = [line for line in itertools.islice(csv.reader(stream, delimiter=separator), skip, None) if line]
    names = lines.pop(0) if header and lines else [str(number) for number in range(len(lines[0]) if lines else 0)]
    if not lines:
        raise _misshapen(path, "it has no lines")
    if len(lines[0]) == len(names) + 1:
        names = ["", *names]
    for number, line in enumerate(lines, start=skip + header + 1):
        if len(line) != len(names):
            raise _misshapen(path, f"line {number} has {len(line)} fields, not {len(names)}")
    return [dict(zip(names, line, strict=True)) for line in lines]


def read_matrix(
    table: Table, *, names: int = 1, columns: slice | None = None, rows: int | None = None
) -> tuple[np.ndarray, np.ndarray, Any]:
    """Return (names of the columns, names of the rows, columns by rows as a sparse matrix).

    Rows are genes and columns are cells in published tables; the result is the other way round.

    Parameters
    ----------
    table
        The table.
    names
        How many fields at the start of a line hold names; the first of them names the row.
    columns
        Which of the fields after ``names`` to read; all by default.
    rows
        How many lines to read after the header; all by default.

    Raises
    ------
    CellDualityError
        If a value is no number or negative, or a line has more or fewer fields than the others.
    """
    import pandas
    import scipy.sparse

    fields = list(range(names, table.width))[columns or slice(None)]
    if columns is None and len(table.header) - len(fields) not in (names, 0):
        raise _misshapen(table.path, f"the header names {len(table.header)} columns, a line has {table.width}")
    found = table.header[-(table.width - names) :][columns or slice(None)]
    lines = max(1, BLOCK_VALUES // max(1, len(fields)))
    genes: list[str] = []
    blocks = []
    with _told(table.path), open_text(table.path) as stream:
        stream.readline()
        reader = pandas.read_csv(
            stream,
            sep=table.separator,
            header=None,
            # With usecols pandas no longer minds lines that are too long: given only where fields are left out.
            usecols=[0, *fields] if len(fields) < table.width - 1 else None,
            dtype={0: str, **dict.fromkeys(fields, np.float32)},
            na_filter=False,
            nrows=rows,
            chunksize=lines,
            engine="c",
            low_memory=False,
        )
        for block in reader:
            genes += [str(name) for name in block[0]]
            values = block[fields].to_numpy()
            if not (values >= 0).all() or np.isinf(values).any():
                raise _misshapen(table.path, "values are negative or infinite")
            blocks.append(scipy.sparse.csc_matrix(values))
    if not blocks:
        raise _misshapen(table.path, "it has no lines")
    return np.array(found, dtype=object), np.array(genes, dtype=object), scipy.sparse.vstack(blocks).T.tocsr()


class _told:
    """Turn what a broken table raises into one line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        broken = (OSError, EOFError, UnicodeDecodeError, ValueError, csv.Error)
        if isinstance(error, broken) and not isinstance(error, CellDualityError):
            raise _misshapen(self.path, f"{type(error).__name__}: {str(error)[:120]}") from error


def _misshapen(path: Path, why: str) -> CellDualityError:
    return CellDualityError(
        f"not the table that was published ({why})", where=str(path), mend="remove the file and fetch the set again"
    )


def read_lines(stream: IO[bytes]) -> Iterator[list[str]]:
    """Yield the tab-separated fields of each line of a .gz stream."""
    with gzip.open(stream, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield line.rstrip("\r\n").split("\t")
