"""Made-up runs: one metric a task, any columns, one value a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

KINDS = {"majority": "baseline", "real cells": "real"}


def runs_of(metrics: Mapping[str, tuple[str, Mapping[str, Sequence[float | None]]]]) -> list[dict[str, Any]]:
    """Return the runs of {metric: (better, {column: value by seed})}."""
    names = list(dict.fromkeys(name for _, columns in metrics.values() for name in columns))
    count = len(next(iter(next(iter(metrics.values()))[1].values())))

    def measured(name: str, seed: int) -> dict[str, Any]:
        return {
            key: {"value": columns[name][seed], "better": better}
            for key, (better, columns) in metrics.items()
            if name in columns
        }

    return [
        {
            "format": "cellduality-metrics",
            "version": 2,
            "split": "test",
            "settings": {"neighbours": [10], "seed": seed},
            "columns": {
                name: {"kind": KINDS.get(name, "checkpoint"), "metrics": measured(name, seed)} for name in names
            },
        }
        for seed in range(count)
    ]


@pytest.fixture(scope="session")
def make_runs() -> Callable[..., list[dict[str, Any]]]:
    return runs_of


@pytest.fixture
def table6() -> list[dict[str, Any]]:
    """Three seeds of three tasks: a gap that one arm half closes and one widens, no gap, a gap in an error."""
    accuracy = {
        "base": [0.1, 0.1, 0.1], "SFT": [0.5, 0.6, 0.7], "oracle": [0.7, 0.81, 0.89], "paper": [0.6, 0.7, 0.81],
        "default": [0.4, 0.51, 0.59], "majority": [0.3, 0.3, 0.3],
    }  # fmt: skip
    exposure = {
        "base": [0.0, 0.0, 0.0], "SFT": [1.0, 1.0, 1.0], "oracle": [1.0, 1.0, 1.0], "paper": [1.0, 1.0, 1.0],
        "default": [1.0, 1.0, 0.9], "majority": [0.5, 0.5, 0.5],
    }  # fmt: skip
    error = {
        "base": [None, None, None], "SFT": [0.5, 0.6, 0.7], "oracle": [0.3, 0.39, 0.51], "paper": [0.4, 0.51, 0.6],
        "default": [0.4, 0.5, 0.61], "real cells": [0.1, 0.1, 0.1],
    }  # fmt: skip
    return runs_of(
        {
            "cell_type_annotation/accuracy": ("higher", accuracy),
            "drug_exposure_prediction/accuracy": ("higher", exposure),
            "perturbation_response_generation/shift_error": ("lower", error),
        }
    )
