"""Control cell and perturbed cell -> perturbation, rebuilt by writing what the control cell becomes under it."""

from __future__ import annotations

from collections.abc import Mapping

from cellduality_plugin.cell_sentences import sentence
from cellduality_plugin.examples import Value
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.tasks.base import FORMAT_RULE, LabelTask, built_in, many, one
from cellduality_plugin.tasks.perturbation_response_generation import PerturbationResponseGeneration
from cellduality_plugin.vocabulary import Vocabulary


@built_in
class PerturbationIdentification(LabelTask):
    """Name what was done to a cell, the inverse of writing a response: that is the dual where the whole cell is hidden.

    x_k is the control cell, with whatever is left of the cell. Not in the paper.
    """

    name = "perturbation_identification"
    family = "dynamics"
    answer = OneOf("perturbation")
    needs = ("control",)

    def primal_prompt(self, inputs: Mapping[str, Value], vocabulary: Vocabulary) -> str:
        # The dual of writing a response is this question, and below the other way round: one skill, one wording.
        known = {"control": inputs["control"]}
        return PerturbationResponseGeneration().dual_prompt(known, many(inputs, "cell"), vocabulary)

    def dual_prompt(self, known: Mapping[str, Value], answer: Value, vocabulary: Vocabulary) -> str:
        shown = {**known, "perturbation": answer}
        if "observed" not in known:
            return PerturbationResponseGeneration().primal_prompt(shown, vocabulary)
        return (
            "Some genes of a cell that an untreated cell became under a perturbation are hidden. "
            f"List the hidden genes in descending order of expression.\n{FORMAT_RULE}\n"
            f"Perturbation: {one(shown, 'perturbation')}\nUntreated cell: {sentence(many(known, 'control'))}\n"
            f"Observed genes: {sentence(many(known, 'observed'))}"
        )
