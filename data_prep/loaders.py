"""Reading an .h5ad file, and refusing what would train on nonsense."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellduality_plugin.errors import CellDualityError
from data_prep.sources import Expression, Matrix

if TYPE_CHECKING:
    from anndata import AnnData

LOG_CEILING = 20.0
"""log1p of counts per 10,000 never passes 9.3, of counts per million 13.9; counts nearly always do."""

TARGET_SUM = 10_000.0

MISSING_LABEL = "cell without a label"


@dataclass(frozen=True)
class Loaded:
    """What a file held.

    Parameters
    ----------
    adata
        Cells by genes; ``X`` is sparse by row, log1p of counts per 10,000; ``obs`` is the one column
        ``cell_type``.
    drops
        How many cells were left out, by reason.
    """

    adata: AnnData
    drops: dict[str, int]


def load_h5ad(path: str | Path, label_column: str, *, expression: Expression = "auto", matrix: Matrix = "X") -> Loaded:
    """Return the labelled cells of an .h5ad file as log1p of counts per 10,000.

    Parameters
    ----------
    path
        The file.
    label_column
        The column of ``obs`` with the cell types; cells without one are left out and counted.
    expression
        What the matrix holds. ``"auto"`` takes whole numbers up to 20 or more for counts, fractions
        below 20 for log1p.
    matrix
        ``"X"``, or ``"raw"`` for the matrix that scanpy keeps aside before scaling.

    Raises
    ------
    CellDualityError
        If the file is missing or unreadable; the matrix is empty, all zeros, or has NaN, infinite or negative
        values; its values are not what ``expression`` says; gene or cell names repeat; the column is unknown.
    """
    path = Path(path)
    adata = _matrix_of(_read(path), matrix, path)
    _check_names(adata, path)
    values = _sparse(adata, path)
    _check_values(values, path, hint="--matrix raw" if matrix == "X" else "--matrix X")
    if _is_counts(values.data, expression, path):
        values = _log1p(values)
    labels, missing = _labels(adata, label_column, path)

    import anndata
    import pandas

    keep = ~missing
    obs = pandas.DataFrame({"cell_type": labels[keep]}, index=adata.obs_names[keep].astype(str))
    kept = anndata.AnnData(X=values[keep], obs=obs, var=pandas.DataFrame(index=adata.var_names.astype(str)))
    drops = {MISSING_LABEL: int(missing.sum())} if missing.any() else {}
    return Loaded(kept, drops)


def _read(path: Path) -> AnnData:
    if not path.is_file():
        raise CellDualityError("no such file", where=str(path), mend="check the path of the .h5ad file")
    try:
        import anndata  # here and not above: it takes seconds, and an up-to-date preparation does without
    except ImportError as error:
        raise CellDualityError("anndata is not installed", where=str(path), mend="pip install anndata") from error
    try:
        with warnings.catch_warnings():  # old layouts and repeated names: what matters of it is checked below
            warnings.simplefilter("ignore")
            return anndata.read_h5ad(path)
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise CellDualityError(
            f"unreadable .h5ad file ({type(error).__name__}: {str(error)[:120]})",
            where=str(path),
            mend="download or write the file again with anndata's write_h5ad",
        ) from error


def _matrix_of(adata: AnnData, matrix: Matrix, path: Path) -> AnnData:
    if matrix == "raw":
        if adata.raw is None:
            raise CellDualityError("the file has no raw matrix", where=str(path), mend="use --matrix X")
        adata = adata.raw.to_adata()
    if adata.X is None or 0 in adata.shape:
        found = "is missing" if adata.X is None else f"is empty: {adata.n_obs} cells x {adata.n_vars} genes"
        raise CellDualityError(
            f"the matrix {matrix} {found}",
            where=str(path),
            mend="check how the file was written, or whether a filter left nothing over",
        )
    return adata


def _check_names(adata: AnnData, path: Path) -> None:
    for what, names, mend in (
        ("gene", adata.var_names, "sum or drop the copies, or call adata.var_names_make_unique()"),
        ("cell", adata.obs_names, "call adata.obs_names_make_unique()"),
    ):
        if not names.is_unique:
            copies = sorted({str(name) for name in names[names.duplicated()]})
            shown = ", ".join(copies[:3]) + (", ..." if len(copies) > 3 else "")
            raise CellDualityError(f"{len(copies)} duplicate {what} names ({shown})", where=str(path), mend=mend)


def _sparse(adata: AnnData, path: Path) -> Any:
    import scipy.sparse

    try:
        values = scipy.sparse.csr_matrix(adata.X).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise CellDualityError(
            f"the matrix does not hold numbers ({error})", where=str(path), mend="store a numeric matrix"
        ) from error
    values.sum_duplicates()
    values.eliminate_zeros()
    return values


def _check_values(values: Any, path: Path, hint: str) -> None:
    data = values.data
    mend = f"repair the matrix, or read the other one with {hint}"
    if not np.isfinite(data).all():
        bad = int((~np.isfinite(data)).sum())
        raise CellDualityError(f"{bad} values of the matrix are NaN or infinite", where=str(path), mend=mend)
    if data.size == 0:
        raise CellDualityError("the matrix is all zeros", where=str(path), mend=mend)
    if (data < 0).any():
        bad = int((data < 0).sum())
        raise CellDualityError(
            f"{bad} values of the matrix are negative, as in scaled data, which cannot rank expressed genes",
            where=str(path),
            mend=f"store counts or log1p values, or read the other matrix with {hint}",
        )


def _is_counts(data: np.ndarray, expression: Expression, path: Path) -> bool:
    whole, highest = bool((data == np.floor(data)).all()), float(data.max())
    found = f"the values are {'whole numbers' if whole else 'fractions'} up to {highest:g}"
    if expression == "counts":
        if not whole:
            raise CellDualityError(
                f"counts are declared, but {found}",
                where=str(path),
                mend="use --expression log1p, or store raw counts",
            )
        return True
    if expression == "log1p":
        if whole or highest >= LOG_CEILING:
            raise CellDualityError(
                f"log1p values are declared, but {found}",
                where=str(path),
                mend="use --expression counts" if whole else "apply log1p, or store raw counts",
            )
        return False
    if whole == (highest >= LOG_CEILING):
        return whole
    raise CellDualityError(
        f"cannot tell counts from log1p values: {found}",
        where=str(path),
        mend="use --expression counts" if whole else "store raw counts or log1p of counts per 10,000",
    )


def _log1p(counts: Any) -> Any:
    """Return log1p of counts per 10,000; a cell without counts stays empty."""
    totals = np.asarray(counts.sum(axis=1)).ravel()
    scale = np.divide(TARGET_SUM, totals, out=np.zeros_like(totals), where=totals > 0)
    values = counts.copy()
    values.data = np.log1p(values.data * np.repeat(scale, np.diff(values.indptr)))
    return values


def _labels(adata: AnnData, column: str, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return (labels as text, which cells have none)."""
    if column not in adata.obs:
        known = ", ".join(map(str, adata.obs.columns)) or "(there is none)"
        raise CellDualityError(
            f"no column {column!r} in obs", where=str(path), mend=f"use --label-column with one of: {known}"
        )
    series = adata.obs[column]
    # A label is one line of a prompt, so white space is folded; tags would be read as the end of an answer.
    labels = np.array([" ".join(str(label).split()) for label in series], dtype=object)
    missing = np.asarray(series.isna()) | (labels == "")
    tagged = sorted({label for label in labels[~missing] if "<" in label or ">" in label})
    if tagged:
        raise CellDualityError(
            f"label {tagged[0]!r} holds an angle bracket",
            where=f"{path}, obs[{column!r}]",
            mend="rename the label",
        )
    if missing.all():
        raise CellDualityError(
            "every label is missing", where=f"{path}, obs[{column!r}]", mend="choose another --label-column"
        )
    return labels, missing
