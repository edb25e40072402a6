"""The cells of a published set on their way from its files, .h5ad or text tables, to the one shape of all sets."""

from __future__ import annotations

import contextlib
import csv
import gzip
import itertools
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from cellduality_plugin.perturbations import CONTROL
from data_prep.cells import CellTable
from data_prep.loading.dataset import not_published

if TYPE_CHECKING:
    from data_prep.loading.dataset import Dataset

MIN_GENES, MIN_CELLS, MIN_LABEL = 200, 8, 20
"""InstructCell's: expressed genes a cell, cells a gene, and cells a cell type must have to stay."""

NO_LABEL = "cell without a label"
BLOCK_VALUES = 20_000_000  # values of a text table in memory as a dense block at a time: 160 MB


@dataclass
class Draft:
    """Cells by genes, what is known of the cells, and how much has been left out so far by reason.

    ``values`` are finite and non-negative, made sparse by row; an empty text in ``obs`` stands for no value.
    """

    values: Any
    cells: Any
    genes: Any
    counts: bool = True  # whether the values are linear in counts, not logarithms
    obs: dict[str, np.ndarray] = field(default_factory=dict)
    drops: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        import scipy.sparse

        self.values = scipy.sparse.csr_matrix(self.values)
        self.values.eliminate_zeros()
        self.cells, self.genes = text(self.cells), text(self.genes)
        if not (self.values.data >= 0).all() or np.isinf(self.values.data).any():
            where = f"{len(self.cells)} cells x {len(self.genes)} genes"
            raise not_published(where, "the matrix has negative, infinite or missing values")

    def logs_unless_whole(self) -> Draft:
        """Take the values for logarithms if those of the first cells are no whole numbers, as counts are."""
        first = self.values[:256].data
        self.counts = bool((first == np.floor(first)).all())
        return self

    def keep_cells(self, keep: Sequence[bool] | np.ndarray, reason: str) -> None:
        keep = np.array(keep, dtype=bool)
        if not keep.all():
            self.drops[reason] += int((~keep).sum())
            self.values, self.cells = self.values[keep], self.cells[keep]
            self.obs = {name: column[keep] for name, column in self.obs.items()}

    def keep_genes(self, keep: Sequence[bool] | np.ndarray, reason: str) -> None:
        keep = np.array(keep, dtype=bool)
        if not keep.all():
            self.drops[reason] += int((~keep).sum())
            self.values, self.genes = self.values[:, keep], self.genes[keep]

    def put(self, **columns: str | Sequence[str] | np.ndarray) -> Draft:
        """Fill columns of ``obs``; one text stands for all cells."""
        for name, column in columns.items():
            self.obs[name] = text([column] * len(self.cells) if isinstance(column, str) else column)
        return self

    def put_drugs(self, drugs: Sequence[str] | np.ndarray, doses: Sequence[str], control: np.ndarray) -> Draft:
        """Fill ``drug``, ``dose`` and ``perturbation``, and leave out cells without one.

        A ``control`` had the vehicle alone, and has neither drug nor dose; any other dose may be empty.
        """
        self.put(drug=np.where(control, "", text(drugs)), dose=np.where(control, "", text(doses)))
        both = zip(self.obs["drug"], self.obs["dose"], strict=True)
        treated = [f"drug {drug} {dose}".strip() if drug else "" for drug, dose in both]
        self.put(perturbation=np.where(control, CONTROL, text(treated)))
        self.keep_cells(self.obs["perturbation"] != "", NO_LABEL)
        return self

    def drop_copies(self) -> None:
        """Leave out genes and cells whose name came before."""
        from pandas import Index

        self.keep_genes(~Index(self.genes).duplicated(), "gene whose name came before")
        self.keep_cells(~Index(self.cells).duplicated(), "cell whose name came before")

    def drop_unlabelled(self, column: str = "cell_type") -> None:
        """Leave out cells without a label."""
        self.keep_cells(self.obs[column] != "", NO_LABEL)

    def filter(self, *, max_genes: int | None = None, max_mito: float | None = None, mito: str = "MT-") -> Draft:
        """Leave out copies, then poor cells and genes, as InstructCell does, in its order.

        ``max_genes`` expressed genes or more mean a doublet, ``max_mito`` per cent of counts in genes ``mito...`` a
        dying cell.
        """
        self.drop_copies()
        self.keep_cells(np.diff(self.values.indptr) >= MIN_GENES, f"cell with fewer than {MIN_GENES} genes")
        common = np.bincount(self.values.indices, minlength=len(self.genes)) >= MIN_CELLS
        self.keep_genes(common, f"gene in fewer than {MIN_CELLS} cells")
        totals = np.maximum(np.asarray(self.values.sum(axis=1)).ravel(), 1e-12)
        mitochondrial = np.array([gene.startswith(mito) for gene in self.genes], dtype=bool)
        share = 100 * np.asarray(self.values[:, mitochondrial].sum(axis=1)).ravel() / totals
        few = np.diff(self.values.indptr) < (max_genes or np.inf)
        self.keep_cells(few, f"cell with {max_genes} genes or more")
        if max_mito is not None:
            self.keep_cells((share < max_mito)[few], f"cell with {max_mito:g} % mitochondrial counts or more")
        return self

    def clean(self, label: str = "cell_type", *, no_type: frozenset[str] = frozenset(), **caps: Any) -> Draft:
        """Leave out copies, then what :meth:`filter` does, then cells without a ``label`` or of a type rare before.

        Labels of ``no_type`` say that a cell is of none.
        """
        self.drop_copies()
        sizes = Counter(self.obs[label])
        self.filter(**caps)
        typed = [kind not in no_type for kind in self.obs[label]]
        self.keep_cells(typed, "cell whose label is no type (co-expression, unclassified)")
        self.drop_unlabelled(label)
        if label == "cell_type":
            common = [sizes[kind] >= MIN_LABEL for kind in self.obs[label]]
            self.keep_cells(common, f"cell of a type with fewer than {MIN_LABEL} cells")
        return self

    def finish(self, dataset: Dataset) -> CellTable:
        """Return the cells of float32 with the columns that ``dataset`` names, once nothing is there twice."""
        import pandas
        import scipy.sparse

        self.drop_copies()
        drops = {why: count for why, count in self.drops.items() if count}
        if 0 in self.values.shape:
            left_out = ", ".join(f"{count} x {reason}" for reason, count in drops.items())
            raise not_published(dataset.name, f"nothing is left of it: {left_out or 'the files are empty'}")
        if "tissue" in dataset.columns and "tissue" not in self.obs:
            self.put(tissue=dataset.tissue)
        block, counts = scipy.sparse.csr_matrix(self.values, dtype=np.float32), self.counts
        block.sum_duplicates()
        obs = pandas.DataFrame({name: self.obs[name] for name in dataset.columns}, index=self.cells)
        return CellTable(obs, tuple(self.genes), lambda: counts, drops, lambda: iter([block]))


def read_cells(
    path: Path,
    columns: Mapping[str, str],
    matrix: Literal["X", "raw", "counts"] = "X",
    *,
    logs: bool = False,
    symbols: str = "",
    optional: Sequence[str] = (),
) -> Draft:
    """Return the cells of an .h5ad file.

    ``columns`` are those of ``obs`` by the name they get; ``optional`` ones are taken over if they are there. The
    matrix ``"counts"`` is X, or raw if only that holds whole numbers; with ``logs`` values that are no whole numbers
    are logarithms. ``symbols`` is the column of ``var`` with the names of the genes, if there is one; genes without
    such a name are left out.
    """
    from data_prep.h5ad.matrices import open_tables

    tables = open_tables(path, matrix)
    ids = text(tables.var.index)  # where a gene has no symbol, CELLxGENE gives its id as such
    draft = Draft(tables.matrix.read(), tables.obs.index, tables.var.get(symbols, ids).astype(object))
    for name, column in [*((name, name) for name in optional if name in tables.obs), *columns.items()]:
        if column not in tables.obs:
            raise not_published(path, f"no column {column!r} in obs, which has {', '.join(map(str, tables.obs))}")
        draft.put(**{name: tables.obs[column].astype(object)})
    named = [gene not in ("", name) for gene, name in zip(draft.genes, ids, strict=True)]
    if any(named):
        draft.keep_genes(named, "gene without a symbol")
    return draft.logs_unless_whole() if logs else draft


def ready_cells(files: Mapping[str, Path], columns: Mapping[str, str]) -> Draft | None:
    """Return the cells of the .h5ad file that the user has ready, see :class:`~data_prep.loading.dataset.Dataset`."""
    ready = [path for name, path in files.items() if name.endswith(".h5ad")]
    return read_cells(ready[0], columns) if ready else None


def text(values: Any) -> np.ndarray:
    """Return an array of Python strings with white space folded; NaN and None become empty.

    Examples
    --------
    >>> list(text(["B  cell ", None, float("nan"), 3]))
    ['B cell', '', '', '3']
    """
    folded = ["" if value is None or value != value else " ".join(str(value).split()) for value in values]
    return np.array(folded, dtype=object)


def look_up(table: Mapping[str, str], keys: Sequence[str] | np.ndarray, where: Path | str) -> np.ndarray:
    """Return the label of every key; empty where there is none. If not one has a label, the files do not fit."""
    labels = [table.get(str(key), "") for key in keys]
    if not any(labels):
        shown = f"{keys[0]!r} against {next(iter(table), '')!r}" if len(keys) else "no cell"
        raise not_published(where, f"no cell of the matrix has a label: {shown}")
    return text(labels)


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
