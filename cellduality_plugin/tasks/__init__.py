"""The dual pairs, by name: one file each; every file of the folder is imported."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from cellduality_plugin.import_paths import find
from cellduality_plugin.tasks.base import TASKS, DualTask

__all__ = ["TASKS", "DualTask", "get_task"]

for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")


def get_task(name: str, folder: Path | None = None) -> DualTask:
    """Return the pair called ``name``: a key of :data:`TASKS`, ``"package.module:Class"`` or ``"file.py:Class"``.

    A file is relative to ``folder``, by default the working directory. A CellDualityError lists the pairs there are if
    there is none of that name.
    """
    return find(name, TASKS, DualTask, folder, what="dual pair", where="tasks")  # type: ignore[type-abstract]
