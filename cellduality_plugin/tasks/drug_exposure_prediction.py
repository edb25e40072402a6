"""Cell and drug -> was the cell exposed to it: in place of sensitivity where that was not measured."""

from __future__ import annotations

from cellduality_plugin.parsing import OneOf
from cellduality_plugin.tasks.base import built_in
from cellduality_plugin.tasks.drug_sensitivity_prediction import DrugSensitivityPrediction


@built_in
class DrugExposurePrediction(DrugSensitivityPrediction):
    """Distinguish exposed cells from others, on sets of which only the exposure is known. Not in the paper, and not
    sensitivity: it says what was done to a cell, not how the cell responded."""

    name = "drug_exposure_prediction"
    answer = OneOf("exposure")
    question = "Tell whether a cell was exposed to a drug"
    heading = "Exposure"
