"""The one normalisation: log1p of counts per 10,000."""

from __future__ import annotations

from typing import Any

import numpy as np

TARGET_SUM = 10_000.0


def log1p_per_10k(counts: Any) -> Any:
    """Return log1p of counts per 10,000 of a sparse matrix, cells by genes; a cell without counts stays empty."""
    values = counts.tocsr().astype(np.float64)  # always a copy
    totals = np.asarray(values.sum(axis=1)).ravel()
    scale = np.divide(TARGET_SUM, totals, out=np.zeros_like(totals), where=totals > 0)
    values.data = np.log1p(values.data * np.repeat(scale, np.diff(values.indptr)))
    return values
