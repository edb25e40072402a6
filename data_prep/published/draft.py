"""A set on its way from what was published to the one shape that all loaders share."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from cellduality_plugin.errors import CellDualityError
from data_prep.registry import COLUMNS

if TYPE_CHECKING:
    from anndata import AnnData

Expression: TypeAlias = Literal["counts", "log1p", "tpm", "rpkm", "log2"]

MIN_GENES, MIN_CELLS, MIN_LABEL = 200, 8, 20
"""InstructCell's: expressed genes a cell, cells a gene, and cells a cell type must have to stay."""

COPIED_GENE, COPIED_CELL = "gene whose name came before", "cell whose name came before"
FEW_GENES, FEW_CELLS = f"cell with fewer than {MIN_GENES} genes", f"gene in fewer than {MIN_CELLS} cells"
NO_LABEL, RARE_LABEL = "cell without a label", f"cell of a type with fewer than {MIN_LABEL} cells"


@dataclass
class Draft:
    """Cells by genes, and what has been left out so far.

    Parameters
    ----------
    values
        Sparse; finite and non-negative. Zeros that are stored are taken out.
    cells, genes
        Names, in the order of ``values``.
    obs
        Column by name, in the order of ``cells``; an empty text stands for no value.
    drops
        How many cells or genes were left out, by reason.
    """

    values: Any
    cells: np.ndarray
    genes: np.ndarray
    obs: dict[str, np.ndarray] = field(default_factory=dict)
    drops: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        import scipy.sparse

        self.values = scipy.sparse.csr_matrix(self.values)
        self.values.eliminate_zeros()
        self.cells, self.genes = text(self.cells), text(self.genes)
        if not (self.values.data >= 0).all() or np.isinf(self.values.data).any():
            raise CellDualityError(
                "the matrix has negative, infinite or missing values",
                where=f"{len(self.cells)} cells x {len(self.genes)} genes",
                mend="check that the files are the published ones",
            )

    def keep_cells(self, keep: np.ndarray, reason: str) -> None:
        """Leave out the cells where ``keep`` is false."""
        if not keep.all():
            self.drops[reason] += int((~keep).sum())
            self.values, self.cells = self.values[keep], self.cells[keep]
            self.obs = {name: column[keep] for name, column in self.obs.items()}

    def keep_genes(self, keep: np.ndarray, reason: str) -> None:
        """Leave out the genes where ``keep`` is false."""
        if not keep.all():
            self.drops[reason] += int((~keep).sum())
            self.values, self.genes = self.values[:, keep], self.genes[keep]

    def put(self, **columns: str | Sequence[str] | np.ndarray) -> None:
        """Fill columns of ``obs``; one text stands for all cells."""
        for name, column in columns.items():
            self.obs[name] = text(np.full(len(self.cells), column) if isinstance(column, str) else column)

    def drop_copies(self) -> None:
        """Leave out genes and cells whose name came before."""
        self.keep_genes(first_of_name(self.genes), COPIED_GENE)
        self.keep_cells(first_of_name(self.cells), COPIED_CELL)

    def drop_labels(self, column: str, rare: frozenset[str] = frozenset()) -> None:
        """Leave out cells without a label, and cells with one of the ``rare`` labels."""
        labels = self.obs[column]
        self.keep_cells(labels != "", NO_LABEL)
        self.keep_cells(np.array([label not in rare for label in self.obs[column]], dtype=bool), RARE_LABEL)

    def filter(self, *, max_genes: int | None = None, max_mito: float | None = None, mito: str = "MT-") -> None:
        """Leave out poor cells and genes, as InstructCell does, in its order.

        Parameters
        ----------
        max_genes
            Cells with as many expressed genes, or more, are taken for doublets.
        max_mito
            Per cent of counts; cells with as many in mitochondrial genes, or more, are taken for dying.
        mito
            How the names of mitochondrial genes begin.
        """
        self.keep_cells(np.diff(self.values.indptr) >= MIN_GENES, FEW_GENES)
        self.keep_genes(np.bincount(self.values.indices, minlength=len(self.genes)) >= MIN_CELLS, FEW_CELLS)
        n_genes = np.diff(self.values.indptr)
        totals = np.maximum(np.asarray(self.values.sum(axis=1)).ravel(), 1e-12)
        mitochondrial = np.array([gene.startswith(mito) for gene in self.genes], dtype=bool)
        share = 100 * np.asarray(self.values[:, mitochondrial].sum(axis=1)).ravel() / totals
        few = np.ones(len(self.cells), dtype=bool) if max_genes is None else n_genes < max_genes
        self.keep_cells(few, f"cell with {max_genes} genes or more")
        if max_mito is not None:
            self.keep_cells((share < max_mito)[few], f"cell with {max_mito:g} % mitochondrial counts or more")

    def finish(self, dataset: str, variant: str, species: str, expression: Expression, **uns: Any) -> AnnData:
        """Return the cells in the shared shape.

        Raises
        ------
        CellDualityError
            If nothing is left.
        """
        import anndata
        import pandas
        import scipy.sparse

        drops = {reason: count for reason, count in self.drops.items() if count}
        if 0 in self.values.shape:
            told = ", ".join(f"{count} x {reason}" for reason, count in drops.items()) or "the files are empty"
            raise CellDualityError(
                f"nothing is left of the set ({told})",
                where=dataset,
                mend="check that the files are the published ones",
            )
        assert set(self.obs) <= set(COLUMNS), set(self.obs)
        values = scipy.sparse.csr_matrix(self.values, dtype=np.float32)
        values.sort_indices()
        with warnings.catch_warnings():  # anndata tells of every conversion
            warnings.simplefilter("ignore")
            adata = anndata.AnnData(
                X=values, obs=pandas.DataFrame(self.obs, index=self.cells), var=pandas.DataFrame(index=self.genes)
            )
        adata.uns.update(dataset=dataset, variant=variant, species=species, expression=expression, drops=drops, **uns)
        return adata


def text(values: Any) -> np.ndarray:
    """Return an array of Python strings with white space folded; NaN and None become empty.

    Examples
    --------
    >>> list(text(["B  cell ", None, float("nan"), 3]))
    ['B cell', '', '', '3']
    """
    folded = ["" if value is None or value != value else " ".join(str(value).split()) for value in values]
    return np.array(folded, dtype=object)


def rare_labels(labels: np.ndarray) -> frozenset[str]:
    """Return the labels of fewer than :data:`MIN_LABEL` cells.

    Examples
    --------
    >>> sorted(rare_labels(np.array(["T"] * 20 + ["B"] * 19, dtype=object)))
    ['B']
    """
    return frozenset(label for label, count in Counter(labels).items() if count < MIN_LABEL)


def first_of_name(names: np.ndarray) -> np.ndarray:
    """Return which names have not come before.

    Examples
    --------
    >>> first_of_name(np.array(["A", "B", "A"])).tolist()
    [True, True, False]
    """
    first = np.zeros(len(names), dtype=bool)
    first[np.unique(names.astype(str), return_index=True)[1]] = True
    return first


def look_up(table: Mapping[str, str], keys: Sequence[str] | np.ndarray, where: str) -> np.ndarray:
    """Return the label of every key; empty where there is none.

    Raises
    ------
    CellDualityError
        If not one key has a label: the two files do not belong together.
    """
    labels = [table.get(str(key), "") for key in keys]
    if not any(labels):
        shown = f"{keys[0]!r} against {next(iter(table), '')!r}" if len(keys) else "no cell"
        raise CellDualityError(
            f"no cell of the matrix has a label ({shown})",
            where=where,
            mend="check that both files are the published ones",
        )
    return text(labels)


def file_of(files: Mapping[str, Path], name: str) -> Path:
    """Return the file called ``name``, packed (.gz) or not.

    Raises
    ------
    CellDualityError
        If it is not among ``files`` or not on the disk.
    """
    for candidate in (name, f"{name}.gz", name.removesuffix(".gz")):
        path = files.get(candidate)
        if path is not None and Path(path).is_file():
            return Path(path)
    at_hand = ", ".join(files) or "none"
    raise CellDualityError(f"the file {name} is missing (at hand: {at_hand})", where=name, mend="fetch the set again")
