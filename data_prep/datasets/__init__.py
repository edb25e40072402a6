"""Published sets by name, one file each: how its files are read, and its entry ``DATASET``."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from dataclasses import replace

from cellduality_plugin.errors import CellDualityError
from data_prep.loading.dataset import Dataset

DATASETS: dict[str, Dataset] = {
    name: replace(importlib.import_module(f"{__name__}.{name}").DATASET, name=name)
    for _, name, _ in pkgutil.iter_modules(__path__)
}


def find_dataset(name: str) -> Dataset:
    """Return the set called ``name``; a CellDualityError suggests the nearest names if there is none."""
    if name in DATASETS:
        return DATASETS[name]
    near = difflib.get_close_matches(name, DATASETS, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "`cellduality data list` shows what there is"
    raise CellDualityError(f"no data set {name!r}", code="unknown-dataset", where="registry", hint=hint)
