"""The dual pairs, by name."""

from __future__ import annotations

from pathlib import Path

from cellduality_plugin.import_paths import find
from cellduality_plugin.tasks.base import DualTask
from cellduality_plugin.tasks.cell_type_annotation import CellTypeAnnotation
from cellduality_plugin.tasks.conditional_cell_generation import ConditionalCellGeneration
from cellduality_plugin.tasks.drug_exposure_prediction import DrugExposurePrediction
from cellduality_plugin.tasks.drug_sensitivity_prediction import DrugSensitivityPrediction
from cellduality_plugin.tasks.perturbation_identification import PerturbationIdentification
from cellduality_plugin.tasks.perturbation_response_generation import PerturbationResponseGeneration

__all__ = ["TASKS", "DualTask", "get_task"]

_PAIRS = (
    CellTypeAnnotation(),
    ConditionalCellGeneration(),
    DrugSensitivityPrediction(),
    DrugExposurePrediction(),
    PerturbationResponseGeneration(),
    PerturbationIdentification(),
)
TASKS: dict[str, DualTask] = {pair.name: pair for pair in _PAIRS}
"""The built-in pairs, in the order of rows and tables."""


def get_task(name: str, folder: Path | None = None) -> DualTask:
    """Return the pair called ``name``: a key of :data:`TASKS`, ``"package.module:Class"`` or ``"file.py:Class"``.

    A file is relative to ``folder``, by default the working directory. A CellDualityError lists the pairs there are if
    there is none of that name.
    """
    return find(name, TASKS, DualTask, folder, what="dual pair", where="tasks")  # type: ignore[type-abstract]
