"""Cell and drug -> was the cell exposed to it: the stand-in where nobody measured sensitivity."""

from __future__ import annotations

from cellduality_plugin.parsing import OneOf
from cellduality_plugin.tasks.drug_sensitivity_prediction import DrugSensitivityPrediction


class DrugExposurePrediction(DrugSensitivityPrediction):
    """Tell exposed cells from others. Not in the paper, and not sensitivity: it says what was done to a cell, not how
    the cell took it. It has the same form, on sets of which only the exposure is known."""

    name = "drug_exposure_prediction"
    answer = OneOf("exposure")
    question = "Tell whether a cell was exposed to a drug"
    heading = "Exposure"
