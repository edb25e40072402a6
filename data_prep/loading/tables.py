"""Text tables, as GEO has them; large ones of genes by cells are read into a sparse matrix block by block."""

from __future__ import annotations

import contextlib
import csv
import gzip
import itertools
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from data_prep.loading.dataset import not_published

BLOCK_VALUES = 20_000_000  # values in memory as a dense block at a time: 160 MB


def read_rows(path: Path, separator: str, *, header: bool = True) -> list[dict[str, str]]:
    """Return the lines of a small table as {column: value}; of columns with one name the last is kept.

    A header that is one name short, as R writes it, does not name the first column: that is ``""`` then. Without a
    header, columns are named ``"0"``, ``"1"``, and so on.
    """
    with _stream(path) as stream:
        rows = [line for line in csv.reader(stream, delimiter=separator) if line]
        if len(rows) <= header:
            raise ValueError("it has no lines")
        names = rows.pop(0) if header else list(map(str, range(len(rows[0]))))
        if len(rows[0]) == len(names) + 1:
            names = ["", *names]
        for number, row in enumerate(rows, start=header + 1):
            if len(row) != len(names):
                raise ValueError(f"line {number} has {len(row)} fields, not {len(names)}")
    return [dict(zip(names, row, strict=True)) for row in rows]


def read_header(path: Path, separator: str) -> tuple[list[str], int]:
    """Return (the fields of the first line, how many the second has)."""
    with _stream(path) as stream:
        first = list(itertools.islice(csv.reader(stream, delimiter=separator), 2))
        if len(first) < 2 or len(first[1]) < 2:
            raise ValueError("it has no two lines of two fields")
    return first[0], len(first[1])


def read_matrix(
    path: Path, separator: str, *, names: int = 1, columns: slice = slice(None), rows: int | None = None
) -> tuple[Any, np.ndarray, np.ndarray]:
    """Return (cells by genes as a sparse matrix, names of the cells, names of the genes) of a table of genes by cells.

    The first ``names`` fields of a line are names, of which the first is the gene's; the header may leave them out.
    Only the ``columns`` of those that follow are read, and only so many ``rows`` after the header; by default all.
    """
    import pandas
    import scipy.sparse

    header, width = read_header(path, separator)
    fields = list(range(names, width))[columns]
    genes, blocks = [], []
    with _stream(path) as stream:
        if columns == slice(None) and len(header) - len(fields) not in (names, 0):
            raise ValueError(f"the header names {len(header)} columns, a line has {width}")
        stream.readline()
        reader = pandas.read_csv(
            stream,
            sep=separator,
            header=None,
            # With usecols pandas no longer minds lines that are too long: given only where fields are left out.
            usecols=[0, *fields] if len(fields) < width - 1 else None,
            dtype={0: str, **dict.fromkeys(fields, np.float32)},
            na_filter=False,
            nrows=rows,
            chunksize=max(1, BLOCK_VALUES // max(1, len(fields))),
            engine="c",
            low_memory=False,
        )
        for block in reader:
            genes += block[0].tolist()
            values = block[fields].to_numpy()
            if not (values >= 0).all() or np.isinf(values).any():
                raise ValueError("values are negative or infinite")
            blocks.append(scipy.sparse.csc_matrix(values))
    cells = np.array(header[names - width :][columns], dtype=object)
    return scipy.sparse.vstack(blocks).T.tocsr(), cells, np.array(genes, dtype=object)


@contextlib.contextmanager
def _stream(path: Path) -> Iterator[IO[str]]:
    """Open a text file, packed or not; whatever is wrong with it is a CellDualityError."""
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8", newline="") as stream:
            yield stream
    except (OSError, EOFError, ValueError, csv.Error, zlib.error) as error:
        raise not_published(path, error) from error
