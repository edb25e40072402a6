"""From ranks to expression: the line that is fitted to the training cells of a task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.evaluation.embedding import profile_name, rank_profile


def fit_line(curves: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the least-squares line of expression over log rank, each cell and rank counted once.

    ``curves`` are by set, as :func:`data_prep.cells.expression_at_rank` measures them.

    Examples
    --------
    >>> curve = {"mean": [3.0, 3.0 - np.log(2), 3.0 - np.log(3)], "cells": [2, 2, 1], "unit": "log1p"}
    >>> line = fit_line({"blood": curve})
    >>> round(line["intercept"], 3), round(line["slope"], 3), round(line["r2"], 3), line["cells"]
    (3.0, -1.0, 1.0, 2)
    """
    own = list(curves.values())
    means = np.concatenate([np.asarray(curve["mean"], dtype=float) for curve in own])
    counts = np.concatenate([np.asarray(curve["cells"], dtype=float) for curve in own])
    ranks = np.concatenate([np.arange(1, len(curve["mean"]) + 1) for curve in own])
    slope, intercept = np.polyfit(np.log(ranks), means, 1, w=np.sqrt(counts))
    left = means - intercept - slope * np.log(ranks)
    spread = means - np.average(means, weights=counts)
    return {
        "intercept": float(intercept), "slope": float(slope),
        "r2": float(1 - (counts * left**2).sum() / (counts * spread**2).sum()),
        "cells": int(sum(max(curve["cells"]) for curve in own)),
        "sets": sorted(curves), "unit": " or ".join(sorted({curve["unit"] for curve in own})),
    }  # fmt: skip


def lines_by_task(curves: Mapping[str, Any], asked: Mapping[str, Iterable[str]]) -> dict[str, dict[str, Any]]:
    """Return the line of each task over the sets that it is asked about (``asked``: tasks by set), where it has one.

    A line needs two ranks; data of an earlier version have no curves.
    """
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for source, tasks in asked.items():
        for task in tasks:
            if len(curves.get(source, {}).get("mean", ())) > 1:
                found.setdefault(task, {})[source] = curves[source]
    return {task: fit_line(own) for task, own in found.items()}


def expression_by(
    line: Mapping[str, Any] | None, top: int
) -> tuple[Callable[[NDArray[np.int32]], NDArray[np.float64]], str]:
    """Return (expression at ranks, which count from 1, at least 0; what that is, in words).

    Without a line it is what evaluation measures with, and is not fitted.

    Examples
    --------
    >>> line = {"intercept": 3.0, "slope": -1.0, "r2": 0.9, "cells": 7, "sets": ["a"], "unit": "log1p"}
    >>> expression, what = expression_by(line, 64)
    >>> expression(np.array([1, 2, 99])).round(3).tolist()
    [3.0, 2.307, 0.0]
    >>> what
    '3 - 1*log(rank), at least 0: the line fitted to log1p of 7 training cells (a), R2 of the means 0.90; ...'
    """
    if line is None:
        what = f"{profile_name(top)}, a proxy of expression that is not fitted; 0 for genes that are not listed"
        return lambda ranks: np.append(rank_profile(top), 0.0)[np.minimum(ranks - 1, top)], what
    return lambda ranks: np.maximum(0.0, line["intercept"] + line["slope"] * np.log(ranks)), (
        f"{line['intercept']:.4g} - {-line['slope']:.4g}*log(rank), at least 0: the line fitted to {line['unit']} of "
        f"{line['cells']} training cells ({', '.join(line['sets'])}), R2 of the means {line['r2']:.2f}; "
        "0 for genes that are not listed"
    )
