"""Reading an .h5ad file, and refusing what would train on nonsense."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.errors import CellDualityError
from data_prep.h5ad.genes import Species, check_species, symbol_columns, to_human
from data_prep.normalisation import log1p_per_10k
from data_prep.sources import Expression, Matrix

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame, Series

    from data_prep.h5ad.matrices import StoredMatrix

LOG_CEILING = 20.0
"""log1p of counts per 10,000 never passes 9.3, of counts per million 13.9; counts nearly always do."""

MISSING_LABEL = "cell without a label"
SHARED_SYMBOL = "gene without a symbol, or with one that several genes share"


@dataclass(frozen=True)
class Loaded:
    """What a file holds, checked but not read into memory.

    ``stored`` is the matrix in the file, of counts or else log1p of counts per 10,000. Kept are the ``rows`` with
    labels and the ``columns`` of ``genes``; ``drops`` counts the rest by reason. ``obs`` holds ``cell_type`` and
    whatever other columns were asked for, as text, by cell.
    """

    stored: StoredMatrix
    counts: bool
    rows: NDArray[np.bool_]
    columns: NDArray[np.int64]
    obs: DataFrame
    genes: tuple[str, ...]
    drops: dict[str, int]

    def blocks(self) -> Iterator[Any]:
        """Yield the labelled cells in order: CSR blocks of the kept genes, with the values as they are stored."""
        return self.stored.rows(self.rows, self.columns)

    @cached_property
    def adata(self) -> AnnData:
        """The labelled cells in memory: ``X`` is CSR, log1p of counts per 10,000, ``obs`` as here."""
        import anndata
        import pandas
        import scipy.sparse

        values = scipy.sparse.vstack(list(self.blocks()), format="csr").astype(np.float64)
        values.eliminate_zeros()
        var = pandas.DataFrame(index=pandas.Index(self.genes, dtype=object))
        return anndata.AnnData(X=log1p_per_10k(values) if self.counts else values, obs=self.obs.copy(), var=var)


def load_h5ad(
    path: str | Path,
    label_column: str | None,
    *,
    expression: Expression = "auto",
    matrix: Matrix = "X",
    layer: str | None = None,
    columns: Mapping[str, str] | None = None,
    gene_symbols: str | None = None,
    species: Species | None = None,
) -> Loaded:
    """Return the labelled cells of an .h5ad file, all of it checked and none of it held; what is left out is counted.

    Parameters
    ----------
    path
        The file; its matrix is dense or sparse, by row or by column, of integers or floats.
    label_column
        The column of ``obs`` with the cell types; cells without one are left out. None: no cell has a label.
    expression
        What the matrix holds. ``"auto"`` takes whole numbers up to 20 or more for counts, fractions
        below 20 for log1p.
    matrix, layer
        ``"X"``, or ``"raw"`` for what scanpy keeps aside before scaling; or the layer to read in place of both.
    columns
        Further columns of ``obs`` by the name they get, e.g. ``{"perturbation": "condition"}``; cells without a value
        in one of them are left out.
    gene_symbols
        The column of ``var`` with the gene symbols, if the names of ``var`` are ids; genes without a symbol of their
        own are left out.
    species
        What the genes are declared to be of. A mouse's are mapped to their one-to-one human orthologues; genes without
        one are left out. None: the names stay as they are.

    Raises
    ------
    CellDualityError
        If the file is missing or unreadable; the matrix is empty, all zeros, or has NaN, infinite or negative
        values; its values are not what ``expression`` says; gene or cell names repeat; a column or layer is unknown;
        the genes are named by Ensembl ids or are of another species than declared, or of two.
    """
    path = Path(path)
    if not path.is_file():
        raise CellDualityError("no such file", where=str(path), hint="check the path of the .h5ad file")
    from data_prep.h5ad.matrices import open_tables  # it takes seconds, and an up-to-date preparation does without

    tables = open_tables(path, matrix, layer)
    genes, columns_kept, drops = _genes(tables.var, gene_symbols, species, path)
    if not tables.obs.index.is_unique:
        raise _duplicates("cell", tables.obs.index, "call adata.obs_names_make_unique()", path)
    wanted = {} if label_column is None else {"cell_type": label_column}
    obs, rows, missing = _obs(tables.obs, {**wanted, **(columns or {})}, path)
    other = "--matrix raw" if matrix == "X" and layer is None else "--matrix X"
    counts = _check_values(tables.matrix, expression, path, other)
    return Loaded(tables.matrix, counts, rows, columns_kept, obs, genes, {**drops, **missing})


def _genes(
    var: DataFrame, gene_symbols: str | None, species: Species | None, path: Path
) -> tuple[tuple[str, ...], NDArray[np.int64], dict[str, int]]:
    """Return (names, places in the file, drops by reason) of the genes to keep."""
    drops: dict[str, int] = {}
    columns = {str(name): values for name, values in var.items() if values.dtype.kind not in "biufc"}
    if gene_symbols is None:
        if not var.index.is_unique:
            raise _duplicates("gene", var.index, "sum or drop the copies, or call adata.var_names_make_unique()", path)
        names: list[str | None] = [str(name) for name in var.index]
    elif gene_symbols not in columns:
        known = ", ".join(symbol_columns(columns) or columns) or "(there is none)"
        raise CellDualityError(
            f"no column {gene_symbols!r} of names in var", where=str(path), hint=f"use --gene-symbols with: {known}"
        )
    else:
        series = columns[gene_symbols]
        alone = ~(series.isna() | (series.astype(str) == "") | series.duplicated(keep=False))
        names = [str(name) if good else None for name, good in zip(series, alone, strict=True)]
        drops[SHARED_SYMBOL] = int((~alone).sum())
    spoken = [name for name in names if name is not None]
    check_species(spoken, species, where=str(path), columns=symbol_columns(columns))
    if species == "mouse":
        human, lost = to_human(spoken)
        drops.update(lost)
        mapped = dict(zip(spoken, human, strict=True))
        names = [None if name is None else mapped[name] for name in names]
    kept = np.array([place for place, name in enumerate(names) if name is not None], dtype=np.int64)
    if len(kept) == 0:
        raise CellDualityError("no gene is left", where=str(path), hint="check --species and --gene-symbols")
    return tuple(name for name in names if name is not None), kept, {why: n for why, n in drops.items() if n}


def _duplicates(what: str, names: Any, hint: str, path: Path) -> CellDualityError:
    copies = sorted({str(name) for name in names[names.duplicated()]})
    shown = ", ".join(copies[:3]) + (", ..." if len(copies) > 3 else "")
    return CellDualityError(f"{len(copies)} duplicate {what} names ({shown})", where=str(path), hint=hint)


def _obs(obs: DataFrame, wanted: Mapping[str, str], path: Path) -> tuple[DataFrame, NDArray[np.bool_], dict[str, int]]:
    """Return (the wanted columns of the cells that have them all, which cells those are, drops by reason)."""
    import pandas

    keep = np.ones(len(obs), dtype=bool)
    drops: dict[str, int] = {}
    texts: dict[str, NDArray[Any]] = {}
    for name, column in wanted.items():
        if column not in obs:
            known = ", ".join(map(str, obs.columns)) or "(there is none)"
            flag = "--label-column" if name == "cell_type" else f"--{name}-column"
            raise CellDualityError(
                f"no column {column!r} in obs", where=str(path), hint=f"use {flag} with one of: {known}"
            )
        texts[name], missing = _labels(obs[column], f"{path}, obs[{column!r}]")
        reason = MISSING_LABEL if name == "cell_type" else f"cell without a {name}"
        drops[reason] = int((missing & keep).sum())
        keep &= ~missing
    if not keep.any():
        raise CellDualityError(
            f"no cell has a value in all of {', '.join(wanted.values())}", where=str(path), hint="choose other columns"
        )
    kept = {name: values[keep] for name, values in texts.items()}
    index = obs.index if keep.all() else obs.index[keep]
    return pandas.DataFrame(kept, index=index.astype(str)), keep, {why: n for why, n in drops.items() if n}


def _labels(series: Series[Any], where: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return (labels as text, which cells have none)."""
    codes, found = series.factorize()
    # A label is one line of a prompt, so white space is folded; tags would be read as the end of an answer.
    kinds = np.array([*(" ".join(str(label).split()) for label in found), ""], dtype=object)
    labels: NDArray[Any] = kinds[codes]
    missing = labels == ""
    tagged = sorted(label for label in kinds if "<" in label or ">" in label)
    if tagged:
        raise CellDualityError(f"label {tagged[0]!r} holds an angle bracket", where=where, hint="rename the label")
    if missing.all():
        raise CellDualityError("every label is missing", where=where, hint="choose another --label-column")
    return labels, missing


def _check_values(stored: StoredMatrix, expression: Expression, path: Path, other: str) -> bool:
    """Return whether the values are counts; read once, whatever the size."""
    bad = negative = 0
    highest, whole, empty = 0.0, True, True
    for values in stored.values():
        if values.size == 0:
            continue
        low, high = float(values.min()), float(values.max())
        if not np.isfinite([low, high]).all():
            bad += int((~np.isfinite(values)).sum())
            continue
        if low < 0:
            negative += int((values < 0).sum())
        if whole and values.dtype.kind == "f":
            whole = bool((values == np.floor(values)).all())
        empty &= low == high == 0
        highest = max(highest, high)
    hint = f"repair the matrix, or read the other one with {other}"
    if bad:
        raise CellDualityError(f"{bad} values of the matrix are NaN or infinite", where=str(path), hint=hint)
    if empty:
        raise CellDualityError("the matrix is all zeros", where=str(path), hint=hint)
    if negative:
        raise CellDualityError(
            f"{negative} values of the matrix are negative, as in scaled data, which cannot rank expressed genes",
            where=str(path),
            hint=f"store counts or log1p values, or read the other matrix with {other}",
        )
    return _is_counts(whole, highest, expression, path)


def _is_counts(whole: bool, highest: float, expression: Expression, path: Path) -> bool:
    found = f"the values are {'whole numbers' if whole else 'fractions'} up to {highest:g}"
    log = not whole and highest < LOG_CEILING
    if expression == "auto" and whole != (highest >= LOG_CEILING):
        what = f"cannot tell counts from log1p values: {found}"
        hint = "use --expression counts" if whole else "store raw counts or log1p of counts per 10,000"
    elif expression == "counts" and not whole:
        what, hint = f"counts are declared, but {found}", "use --expression log1p, or store raw counts"
    elif expression == "log1p" and not log:
        what = f"log1p values are declared, but {found}"
        hint = "use --expression counts" if whole else "apply log1p, or store raw counts"
    else:
        return whole
    raise CellDualityError(what, where=str(path), hint=hint)
