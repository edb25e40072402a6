"""Reading an .h5ad file, and refusing values, names and labels that make no sense to train on."""

from __future__ import annotations

import unicodedata
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.errors import CellDualityError
from data_prep.cells import CellTable
from data_prep.h5ad.genes import GENE_FEATURES, Species, check_species, is_feature, symbol_columns, to_human

if TYPE_CHECKING:
    from pandas import DataFrame, Series

    from data_prep.h5ad.matrices import Tables

Expression: TypeAlias = Literal["auto", "log1p", "counts"]  # auto: whichever of the two the numbers look like
Matrix: TypeAlias = Literal["X", "raw"]

# So many cells are looked at to tell logarithms from other fractions, of so many expressed genes at least.
FIRST_CELLS, FEW_VALUES = 256, 8
LOG_CEILING = 20.0  # log1p of counts per 10,000 never passes 9.3, of counts per million 13.9; counts nearly always do

NAMED = {
    "cell_type": "--label-column", "perturbation": "--perturbation-column", "drug": "--drug-column",
    "sensitivity": "--sensitivity-column", "exposure": "--exposure-column",
}  # fmt: skip
"""The columns that questions speak of, and the flags that name them in a file."""

MISSING_LABEL = "cell without a label"
SHARED_SYMBOL = "gene without a symbol, or with one that several genes share"
NO_GENE = "feature that is no gene (antibody, hashtag, guide, peak, spike-in)"

MISSING = frozenset({
    "", "nan", "na", "n/a", "n.a.", "#n/a", "<na>", "null", "none", "nat", "-", "--", ".", "?", "missing", "n.d.",
    *(f"not {what}" for what in ("available", "applicable", "determined", "measured", "screened", "tested")),
})  # fmt: skip
"""Texts that stand for no value, in any case: what is left of a missing one in a column that was made text."""


LONGEST_LABEL = 500  # characters: a label is one line of a prompt


def load_h5ad(
    path: Path,  # its matrix is dense or sparse, by row or by column, of integers or floats
    label_column: str | None,  # of ``obs``; becomes ``cell_type``, and cells without one are left out; None: no labels
    *,
    expression: Expression = "auto",  # whole numbers up to 20 or more are counts, fractions below 20 log1p
    matrix: Matrix = "X",  # or "raw" for what scanpy keeps aside before scaling
    layer: str | None = None,  # to be read in place of both
    columns: Mapping[str, str] | None = None,  # further ones by the name they get; cells without a value are left out
    further: Sequence[str] = (),  # columns that keep their names; a cell without a value has an empty text, and stays
    gene_symbols: str | None = None,  # column of ``var``; genes without a symbol of their own are left out
    species: Species | None = None,  # a mouse's genes become their one-to-one human orthologues; None: as they are
    control: Collection[str] = (),  # perturbations that mean something even if they read like a missing value ("none")
    held: int = 0,  # stored values up to which the matrix is kept in memory once it was read
) -> CellTable:
    """Return the labelled cells of an .h5ad file; what is left out is counted.

    A CellDualityError is raised if the file is unreadable; the matrix is empty; gene or cell names repeat; a column or
    layer is unknown; the genes are named by Ensembl ids, hardly any is a gene symbol, or they are of another species
    than declared, or of two. The values are checked as they are read: at the end of the first pass over the blocks a
    CellDualityError is raised if all are zero, any is NaN, infinite or negative, or they are not what ``expression``
    says.
    """
    from data_prep.h5ad.matrices import open_tables  # it takes seconds, and an up-to-date preparation does without

    tables = open_tables(path, matrix, layer)
    genes, kept, drops = _genes(tables.var, gene_symbols, species, path)
    _refuse_duplicates("cell", tables.obs.index, "call adata.obs_names_make_unique()", path)
    labels = {} if label_column is None else {"cell_type": label_column}
    obs, rows, missing = _obs(tables, {**labels, **(columns or {})}, further, control, path)
    stored = tables.matrix
    checked: list[bool] = []  # whether the values are counts, after the first pass

    def read() -> Iterator[Any]:
        seen = _Seen()
        yield from stored.rows(rows, kept, None if checked else seen.add)
        if not checked:
            checked.append(_are_counts(seen, expression, path, stored.key))

    once = cache(lambda: [*read()])
    blocks: Callable[[], Iterator[Any]] = (lambda: iter(once())) if stored.size <= held else read

    def counts() -> bool:
        if not checked:
            deque(blocks(), maxlen=0)
        return checked[0]

    return CellTable(obs, genes, counts, {**drops, **missing}, blocks)


def _genes(
    var: DataFrame, gene_symbols: str | None, species: Species | None, path: Path
) -> tuple[tuple[str, ...], NDArray[np.int64], dict[str, int]]:
    """Return (names, places in the file, drops by reason) of the genes to keep."""
    from pandas import Index

    columns = {str(name): values for name, values in var.items() if values.dtype.kind not in "biufc"}
    if gene_symbols is not None and gene_symbols not in columns:
        hint = f"use --gene-symbols with: {', '.join(symbol_columns(columns) or columns) or '(there is none)'}"
        what = f"no column {gene_symbols!r} of names in var"
        raise CellDualityError(what, code="unknown-column", where=str(path), hint=hint)
    if gene_symbols is None:
        symbols = var.index.astype(str).map(_visible)
        _refuse_duplicates("gene", symbols, "sum or drop the copies, or call adata.var_names_make_unique()", path)
    else:
        given = columns[gene_symbols].astype(object)
        symbols = Index(given.where(given.notna(), "")).astype(str).map(_visible)
    alone = ~(symbols.str.lower().isin(MISSING) | symbols.duplicated(keep=False))
    names = {place: str(symbols[place]) for place in np.flatnonzero(alone).tolist()}
    column = next((name for name in ("feature_types", "feature_biotype") if name in var), None)
    kinds = ["gene"] * len(var) if column is None else var[column].astype(str).tolist()
    of_genes = not GENE_FEATURES.isdisjoint(kind.lower() for kind in kinds)
    genes = {place: name for place, name in names.items() if not is_feature(name, kinds[place], of_genes)}
    drops = {SHARED_SYMBOL: len(var) - len(names), NO_GENE: len(names) - len(genes)}
    check_species([*genes.values()], species, where=str(path), columns=symbol_columns(columns))
    if species == "mouse":
        human, lost = to_human([*genes.values()])
        drops |= lost
        genes = {place: name for place, name in zip(genes, human, strict=True) if name is not None}
    if not genes:
        hint = "check --species and --gene-symbols"
        raise CellDualityError("no gene is left", code="no-genes", where=str(path), hint=hint)
    return tuple(genes.values()), np.array([*genes], dtype=np.int64), {why: n for why, n in drops.items() if n}


def _refuse_duplicates(what: str, names: Any, hint: str, path: Path) -> None:
    if copies := sorted({str(name) for name in names[names.duplicated()]}):
        shown = ", ".join(copies[:3]) + (", ..." if len(copies) > 3 else "")
        what = f"{len(copies)} duplicate {what} names ({shown})"
        raise CellDualityError(what, code="duplicate-names", where=str(path), hint=hint)


def _obs(
    tables: Tables, wanted: Mapping[str, str], further: Sequence[str], named: Collection[str], path: Path
) -> tuple[DataFrame, NDArray[np.bool_], dict[str, int]]:
    """Return (the wanted columns of the cells that have them all, which cells those are, drops by reason)."""
    import pandas

    obs = tables.obs
    keep = np.ones(len(obs), dtype=bool)
    drops: dict[str, int] = {}
    texts: dict[str, NDArray[Any]] = {}
    for name, column in {**wanted, **{column: column for column in further}}.items():
        if column in tables.unreadable:
            what = f"the column {column!r} of obs cannot be read ({tables.unreadable[column]})"
            hint = "write it again as text (anndata: adata.obs[COLUMN].astype(str)), or install a newer anndata"
            raise CellDualityError(what, code="unreadable-column", where=str(path), hint=hint)
        if column not in obs:
            flag = "--held-out or --match" if name in further else NAMED.get(name, f"--{name}-column")
            hint = f"use {flag} with one of: {', '.join(map(str, obs.columns)) or '(there is none)'}"
            raise CellDualityError(f"no column {column!r} in obs", code="unknown-column", where=str(path), hint=hint)
        if name in further:
            codes, found = obs[column].factorize()
            texts[name] = np.array([*(_visible(str(value)) for value in found), ""], dtype=object)[codes]
            continue
        given = named if name == "perturbation" else ()
        texts[name], missing = labels_of(obs[column], given, f"{path}, obs[{column!r}]")
        reason = MISSING_LABEL if name == "cell_type" else f"cell without a {name}"
        drops[reason] = int((missing & keep).sum())
        keep &= ~missing
    if not keep.any():
        what = f"no cell has a value in all of {', '.join(wanted.values())}"
        raise CellDualityError(what, code="no-labels", where=str(path), hint="choose other columns")
    kept = {name: values[keep] for name, values in texts.items()}
    index = obs.index if keep.all() else obs.index[keep]
    return pandas.DataFrame(kept, index=index.astype(str)), keep, {why: n for why, n in drops.items() if n}


def _visible(text: str) -> str:
    """Return the text with white space folded, without what nobody sees, and each character in one spelling.

    Examples
    --------
    >>> _visible("\\ufeffT \\u00a0cell\\u200b"), _visible("u\\u0308") == "\\u00fc"
    ('T cell', True)
    """
    if text.isascii():
        return " ".join(text.split())
    seen = (letter for letter in unicodedata.normalize("NFC", text) if unicodedata.category(letter) != "Cf")
    return " ".join("".join(seen).split())


def labels_of(series: Series[Any], named: Collection[str], where: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return (labels as text, which cells have none); ``named`` are labels, even if they read like none."""
    codes, found = series.factorize()
    # A label is one line of a prompt, so white space is folded; tags would be read as the end of an answer.
    texts = [_visible(str(label)) for label in found]
    kinds = np.array([*("" if t.lower() in MISSING and t not in named else t for t in texts), ""], dtype=object)
    labels: NDArray[Any] = kinds[codes]
    missing = labels == ""
    if tagged := sorted(label for label in kinds if "<" in label or ">" in label):
        what = f"label {tagged[0]!r} holds an angle bracket"
        raise CellDualityError(what, code="unusable-label", where=where, hint="rename the label")
    if long := sorted(label for label in kinds if len(label) > LONGEST_LABEL):
        what = f"label {long[0][:40]!r}... has {len(long[0])} characters"
        raise CellDualityError(what, code="unusable-label", where=where, hint="shorten the label")
    if missing.all():
        hint = "choose another --label-column"
        raise CellDualityError("every label is missing", code="no-labels", where=where, hint=hint)
    return labels, missing


@dataclass
class _Seen:
    """What a pass over all values of a matrix has shown."""

    lowest: float = 0.0
    highest: float = 0.0
    whole: bool = True
    one: float = 0.0  # the first value above zero
    differ: bool = False  # whether another one is not the same
    first: Any = None  # cells, CSR

    def add(self, block: Any) -> None:
        values = block.data
        self.first = block[:FIRST_CELLS] if self.first is None else self.first
        self.lowest = float(np.minimum(self.lowest, values.min(initial=0)))  # NaN stays NaN
        self.highest = float(np.maximum(self.highest, values.max(initial=0)))
        self.whole = self.whole and bool((values == np.floor(values)).all())
        if not self.differ and (expressed := values[values > 0]).size:
            self.one = self.one or float(expressed[0])
            self.differ = bool((expressed != self.one).any())


def _are_logs(block: Any) -> bool:
    """Return whether the fractions of some cells look like logarithms of expression.

    Those of one cell are then made of few different numbers, as counts are, or of multiples of one number; or all cells
    add up to the same, and express some genes only. None of it is true of values that were scaled by gene.
    """
    cells = [values for row in block if (values := row.data[row.data > 0].astype(float)).size >= FEW_VALUES]
    alike = sum(len(np.unique(values)) < 0.9 * len(values) for values in cells)
    if not cells or 2 * alike > len(cells):
        return True
    some = block.nnz < 0.95 * np.prod(block.shape)
    for base in (np.e, 2.0, 10.0):
        linear = [base**values - 1 for values in cells]
        sums = np.array([values.sum() for values in linear])
        units = [[values / unit for unit in (1.0, values.min())] for values in linear]
        whole = [any((np.abs(v - v.round()) < 1e-3 * v).mean() > 0.9 for v in both) for both in units]
        if 2 * sum(whole) > len(cells) or (some and len(cells) > FEW_VALUES and sums.std() < 0.05 * sums.mean()):
            return True
    return False


def _are_counts(seen: _Seen, expression: Expression, path: Path, key: str) -> bool:
    """Return whether the values are counts; those of the matrix at ``key`` that make no sense are refused."""
    whole, highest = seen.whole, seen.highest
    found = f"the values are {'whole numbers' if whole else 'fractions'} up to {highest:g}"
    hint = "repair the matrix"
    if not np.isfinite([seen.lowest, highest]).all():
        code, what = "bad-values", "values of the matrix are NaN or infinite"
    elif seen.lowest < 0:
        code, what = "negative-values", f"values down to {seen.lowest:g}, as in scaled data, cannot rank genes"
        hint = "store counts or log1p values"
    elif not highest:
        code, what = "empty-matrix", "the matrix is all zeros"
    elif not seen.differ:
        code, what = "no-order", f"every expressed gene has the value {seen.one:g}: nothing says which is the higher"
        hint = "store counts or log1p values, not which genes are expressed"
    elif expression == "auto" and whole != (highest >= LOG_CEILING):
        code, what = "doubtful-values", f"cannot tell counts from log1p values: {found}"
        hint = "use --expression counts" if whole else "store raw counts or log1p of counts per 10,000"
    elif expression == "auto" and not whole and not _are_logs(seen.first):
        code, what = "doubtful-values", f"{found}, and no cell's look like logarithms of counts (scaled and cut at 0?)"
        hint = "use --expression log1p if they are"
    elif expression == "counts" and not whole:
        code, what = "doubtful-values", f"counts are declared, but {found}"
        hint = "use --expression log1p, or store raw counts"
    elif expression == "log1p" and (whole or highest >= LOG_CEILING):
        code, what = "doubtful-values", f"log1p values are declared, but {found}"
        hint = "use --expression counts" if whole else "apply log1p, or store raw counts"
    else:
        return whole
    from data_prep.h5ad.matrices import other_matrices

    if others := other_matrices(path, key):
        hint += f", or read another matrix with {' or '.join(others)}"
    raise CellDualityError(what, code=code, where=str(path), hint=hint)
