"""Cell and drug -> label, rebuilt by inpainting: (observed genes, drug, predicted label) -> hidden genes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from cellduality_plugin.cell_sentences import sentence
from cellduality_plugin.examples import Value
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.tasks.base import FORMAT_RULE, LabelTask, built_in, choices, many, one
from cellduality_plugin.vocabulary import Vocabulary


@built_in
class DrugSensitivityPrediction(LabelTask):
    """Say how a cell takes a drug (Table 1); x_k is the observed genes and the drug, section 3.4.1."""

    name = "drug_sensitivity_prediction"
    family = "dynamics"
    answer = OneOf("sensitivity")
    needs = ("drug",)
    question: ClassVar[str] = "Predict how sensitive a cell is to a drug"
    heading: ClassVar[str] = "Sensitivity"

    def primal_prompt(self, inputs: Mapping[str, Value], vocabulary: Vocabulary) -> str:
        return (
            f"{self.question}, from its genes, which are given in descending order of expression.\n"
            f"{choices('answers', self.answer.kind, vocabulary)}\n{FORMAT_RULE}\n"
            f"Drug: {one(inputs, 'drug')}\nCell: {sentence(many(inputs, 'cell'))}"
        )

    def dual_prompt(self, known: Mapping[str, Value], answer: Value, vocabulary: Vocabulary) -> str:
        if "observed" not in known:
            return (
                f"Write a cell that has the given {self.heading.lower()} to a drug, as {one(known, 'length')} "
                f"different genes in descending order of expression.\n{FORMAT_RULE}\n"
                f"Drug: {one(known, 'drug')}\n{self.heading}: {self.answer.render(answer)}"
            )
        return (
            "Some genes of a cell are hidden. List the hidden genes in descending order of expression.\n"
            f"{FORMAT_RULE}\nDrug: {one(known, 'drug')}\n{self.heading}: {self.answer.render(answer)}\n"
            f"Observed genes: {sentence(many(known, 'observed'))}"
        )
