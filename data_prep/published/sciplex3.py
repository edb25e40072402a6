"""Srivatsan 2020, sci-Plex3: 188 compounds on three cell lines, as scPerturb has it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_prep.published.conditions import CONTROL, put_drugs
from data_prep.published.draft import NO_LABEL, Draft, file_of, text
from data_prep.published.h5 import backed, obs_column, sparse_rows

if TYPE_CHECKING:
    from anndata import AnnData


def load(files: Mapping[str, Path], variant: str) -> AnnData:
    """Return the cells; see :meth:`data_prep.registry.Dataset.load`.

    ``control`` under ``perturbation`` is the vehicle. Doses are in nM. The matrix stays on the disk but for the cells
    whose perturbation and cell line are known.
    """
    path = file_of(files, "SrivatsanTrapnell2020_sciplex3.h5ad")
    with backed(path) as adata:
        drugs = text(obs_column(adata, "perturbation", path))
        lines = text(obs_column(adata, "cell_line", path))
        doses = obs_column(adata, "dose_value", path)
        known = np.array(
            [drug not in ("", "nan") and line not in ("", "nan") for drug, line in zip(drugs, lines, strict=True)]
        )
        rows = np.flatnonzero(known)
        draft = Draft(sparse_rows(adata.X, rows), adata.obs_names.to_numpy()[rows], adata.var_names.to_numpy())
    draft.drops[NO_LABEL] += int((~known).sum())
    draft.put(cell_line=lines[rows])
    put_drugs(
        draft,
        drugs=drugs[rows],
        doses=[dose_of(dose) for dose in doses[rows]],
        control=drugs[rows] == CONTROL,
    )
    draft.drop_copies()
    draft.filter()
    return draft.finish("sciplex3", variant, "human", "counts")


def dose_of(value: object) -> str:
    """Return a dose in nM; empty if there is none.

    Examples
    --------
    >>> dose_of(10.0), dose_of("10000.0"), dose_of(float("nan"))
    ('10 nM', '10000 nM', '')
    """
    try:
        number = float(str(value))
    except ValueError:
        return ""
    return f"{number:.10g} nM" if np.isfinite(number) else ""
