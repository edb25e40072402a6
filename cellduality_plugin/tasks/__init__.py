"""The dual pairs, by name."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from pathlib import Path

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.tasks.base import DualTask
from cellduality_plugin.tasks.cell_type_annotation import CellTypeAnnotation
from cellduality_plugin.tasks.conditional_cell_generation import ConditionalCellGeneration
from cellduality_plugin.tasks.drug_exposure_prediction import DrugExposurePrediction
from cellduality_plugin.tasks.drug_sensitivity_prediction import DrugSensitivityPrediction
from cellduality_plugin.tasks.perturbation_response_generation import PerturbationResponseGeneration

__all__ = ["TASKS", "DualTask", "get_task"]

TASKS: dict[str, DualTask] = {
    "cell_type_annotation": CellTypeAnnotation(),
    "conditional_cell_generation": ConditionalCellGeneration(),
    "drug_sensitivity_prediction": DrugSensitivityPrediction(),
    "drug_exposure_prediction": DrugExposurePrediction(),
    "perturbation_response_generation": PerturbationResponseGeneration(),
}


def get_task(name: str, folder: Path | None = None) -> DualTask:
    """Return the pair called ``name``, or the one at an import path.

    Parameters
    ----------
    name
        A key of :data:`TASKS`, ``"package.module:Class"``, or ``"path/to/file.py:Class"``.
    folder
        What a relative file path is relative to; the working directory by default.

    Raises
    ------
    CellDualityError
        If there is no such pair; the message lists those there are.

    Examples
    --------
    >>> get_task("cell_type_annotation").name
    'cell_type_annotation'
    """
    if name in TASKS:
        return TASKS[name]
    module_name, _, class_name = name.rpartition(":")
    if not module_name:
        raise CellDualityError(
            f"no dual pair {name!r}",
            where="tasks",
            mend=f"use one of {', '.join(TASKS)}, or module:Class, or file.py:Class",
        )
    try:
        module = (
            _module_from_file((folder or Path()) / module_name)
            if module_name.endswith(".py")
            else (importlib.import_module(module_name))
        )
        found = getattr(module, class_name)
    except (ImportError, FileNotFoundError, AttributeError) as error:
        raise CellDualityError(
            f"cannot load the dual pair {name!r}: {error}",
            where="tasks",
            mend="check the path; give it as module:Class or file.py:Class",
        ) from error
    if not (inspect.isclass(found) and issubclass(found, DualTask)):
        raise CellDualityError(
            f"{name!r} is not a DualTask", where="tasks", mend="subclass cellduality_plugin.tasks.DualTask"
        )
    return found()


def _module_from_file(path: Path) -> object:
    spec = importlib.util.spec_from_file_location(f"cellduality_pair_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
