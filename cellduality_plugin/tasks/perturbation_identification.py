"""Control cell and perturbed cell -> perturbation, rebuilt by writing what the control cell becomes under it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cellduality_plugin.examples import Example, Value
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.tasks.base import LabelTask, many
from cellduality_plugin.tasks.perturbation_response_generation import PerturbationResponseGeneration
from cellduality_plugin.vocabulary import Vocabulary


class PerturbationIdentification(LabelTask):
    """Name what was done to a cell, the inverse of writing a response; x_k is the control cell, x_u the whole cell.

    Whatever share is hidden elsewhere, here it is all of the cell: what is left of it beside its control would give the
    rest away under any perturbation. The reward is RWJS(cell, rebuilt). Not in the paper.
    """

    name = "perturbation_identification"
    answer = OneOf("perturbation")
    needs = ("control",)

    def primal_prompt(self, inputs: Mapping[str, Value], vocabulary: Vocabulary) -> str:
        # The dual of writing a response, and below the other way round: one skill, asked in one wording.
        known = {"control": inputs["control"]}
        return PerturbationResponseGeneration().dual_prompt(known, many(inputs, "cell"), vocabulary)

    def dual_prompt(self, known: Mapping[str, Value], answer: Value, vocabulary: Vocabulary) -> str:
        return PerturbationResponseGeneration().primal_prompt({**known, "perturbation": answer}, vocabulary)

    def hide(self, example: Example, share: float, rng: np.random.Generator | None = None) -> Example:
        return super().hide(example, 1.0)
