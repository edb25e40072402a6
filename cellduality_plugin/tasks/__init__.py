"""The dual pairs, by name."""

from __future__ import annotations

from pathlib import Path

from cellduality_plugin.import_paths import find
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
    return find(name, TASKS, DualTask, folder, what="dual pair", where="tasks")  # type: ignore[type-abstract]
