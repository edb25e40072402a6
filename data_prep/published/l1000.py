"""L1000: level 3 of GSE92742 (.gctx), or the .h5ad file that chemCPA made of both phases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellduality_plugin.errors import CellDualityError
from data_prep.published.conditions import put_drugs
from data_prep.published.draft import Draft, file_of, text
from data_prep.published.h5 import backed, obs_column, sparse_rows
from data_prep.published.tables import read_rows

if TYPE_CHECKING:
    from anndata import AnnData

PREFIX = "GSE92742_Broad_LINCS_"
MATRIX = PREFIX + "Level3_INF_mlr12k_n1319138x12328.gctx"
READY_MADE = "lincs_full.h5ad"
COMPOUND, VEHICLE = "trt_cp", "ctl_vehicle"
OTHER = "profile that is neither of a compound nor of its vehicle"
INFERRED = "gene that was inferred, not measured"
UNKNOWN_DOSE = ("-666", "-666.0", "nan", "")
"""How L1000 writes that a dose is not known."""


def load(files: Mapping[str, Path], variant: str) -> AnnData:
    """Return the profiles of compounds and their vehicle; see :meth:`data_prep.registry.Dataset.load`.

    These are bulk profiles: log2 of the intensities of 978 landmark genes. All of them take about 8 GB of memory;
    the matrix on the disk, with its 12,328 genes, is read in blocks.
    """
    if READY_MADE in files:
        draft, dataset = _ready_made(file_of(files, READY_MADE)), "l1000_chemcpa"
    else:
        draft, dataset = _level3(files), "l1000"
    draft.drop_copies()
    return draft.finish(dataset, variant, "human", "log2")


def _level3(files: Mapping[str, Path]) -> Draft:
    import h5py

    path = file_of(files, MATRIX)
    genes = {row["pr_gene_id"]: row for row in read_rows(file_of(files, PREFIX + "gene_info.txt"), "\t")}
    profiles = {row["inst_id"]: row for row in read_rows(file_of(files, PREFIX + "inst_info.txt"), "\t")}
    try:
        with h5py.File(path) as store:
            matrix = store["0/DATA/0/matrix"]
            gene_ids, profile_ids = _ids(store["0/META/ROW/id"]), _ids(store["0/META/COL/id"])
            if matrix.shape != (len(profile_ids), len(gene_ids)):
                raise CellDualityError(
                    f"a matrix of {matrix.shape} for {len(profile_ids)} profiles of {len(gene_ids)} genes",
                    where=str(path),
                    mend="remove it and fetch the set again",
                )
            rows = np.array(
                [profiles.get(name, {}).get("pert_type", "") in (COMPOUND, VEHICLE) for name in profile_ids], dtype=bool
            )
            columns = np.array([genes.get(name, {}).get("pr_is_lm", "") == "1" for name in gene_ids], dtype=bool)
            values = sparse_rows(matrix, np.flatnonzero(rows), np.flatnonzero(columns))
    except (OSError, KeyError) as error:
        raise CellDualityError(
            f"unreadable .gctx file ({error})", where=str(path), mend="remove it and fetch the set again"
        ) from error
    symbols = [genes[name]["pr_gene_symbol"] for name in gene_ids[columns]]
    draft = Draft(values, profile_ids[rows], np.array(symbols, dtype=object))
    draft.drops.update({OTHER: int((~rows).sum()), INFERRED: int((~columns).sum())})
    _put([profiles[name] for name in draft.cells], draft)
    return draft


def _ready_made(path: Path) -> Draft:
    with backed(path) as adata:
        symbols = adata.var.get("gene_symbol", adata.var_names)
        names = [
            name for name in ("pert_iname", "cell_id", "pert_dose", "pert_dose_unit", "pert_type") if name in adata.obs
        ]
        columns = {name: text(obs_column(adata, name, path)) for name in names}
        draft = Draft(
            sparse_rows(adata.X, np.arange(adata.n_obs)),
            adata.obs_names.to_numpy(),
            symbols.astype(object).to_numpy(),
        )
    for needed in ("pert_iname", "cell_id", "pert_dose"):
        if needed not in columns:
            raise CellDualityError(f"no column {needed!r} in obs", where=str(path), mend="fetch the set again")
    _put([dict(zip(columns, line, strict=True)) for line in zip(*columns.values(), strict=True)], draft)
    return draft


def _put(profiles: list[dict[str, Any]], draft: Draft) -> None:
    control = np.array([row.get("pert_type") == VEHICLE or row["pert_iname"] == "DMSO" for row in profiles], dtype=bool)
    put_drugs(
        draft,
        drugs=[row["pert_iname"] for row in profiles],
        doses=[dose_of(row["pert_dose"], row.get("pert_dose_unit", "um")) for row in profiles],
        control=control,
    )
    draft.put(cell_line=[row["cell_id"] for row in profiles])


def dose_of(amount: str, unit: str) -> str:
    """Return a dose as it is spoken of; empty if it is not known.

    Examples
    --------
    >>> dose_of("10.0", "um"), dose_of("0.12345", "µM"), dose_of("-666", "-666"), dose_of("1|2", "um")
    ('10 uM', '0.1235 uM', '', '')
    """
    try:
        number = float(amount)
    except ValueError:
        return ""
    if str(amount) in UNKNOWN_DOSE or not np.isfinite(number):
        return ""
    return f"{number:.4g} {unit.lower().replace('µm', 'um').replace('um', 'uM').replace('nm', 'nM')}"


def _ids(values: Any) -> np.ndarray:
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in values[:]]
    return np.array(names, dtype=object)
