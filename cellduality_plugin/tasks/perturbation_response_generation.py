"""Control cell and perturbation -> perturbed cell, rebuilt by naming the perturbation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cellduality_plugin.cell_sentences import Cell, sentence
from cellduality_plugin.examples import Example, Value
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.tasks.base import FORMAT_RULE, CellTask, built_in, choices, many, one
from cellduality_plugin.vocabulary import Vocabulary


@built_in
class PerturbationResponseGeneration(CellTask):
    """Write what a control cell becomes (Table 1); x_k is the control cell, x_u the perturbation (section 3.3.2).

    The gold answer is a cell of the same type that was perturbed. "control" is one of the perturbations: its answer
    is another untreated cell, so that the dual always has something to tell apart.
    """

    name = "perturbation_response_generation"
    family = "dynamics"
    unknown = OneOf("perturbation")
    needs = ("control", "perturbation")

    def primal_prompt(self, inputs: Mapping[str, Value], vocabulary: Vocabulary) -> str:
        return (
            "Write the cell that an untreated cell becomes under a perturbation, "
            f"as {inputs['length']} different genes in descending order of expression.\n"
            f"{FORMAT_RULE}\nPerturbation: {one(inputs, 'perturbation')}\n"
            f"Untreated cell: {sentence(many(inputs, 'control'))}"
        )

    def dual_prompt(self, known: Mapping[str, Value], answer: Value, vocabulary: Vocabulary) -> str:
        return (
            "Name the perturbation that a cell went through, from its genes and those of an untreated cell, "
            "which are given in descending order of expression.\n"
            f"{choices('perturbations', 'perturbation', vocabulary)}\n{FORMAT_RULE}\n"
            f"Untreated cell: {sentence(many(known, 'control'))}\nCell: {self.answer.render(answer)}"
        )

    def example(self, cell: Cell, *, hidden: float, labelled: bool, rng: np.random.Generator) -> Example:
        known: dict[str, Value] = {"control": cell.control}
        perturbation = cell.value("perturbation")
        inputs: dict[str, Value] = {**known, "perturbation": perturbation, "length": str(len(cell.genes))}
        return Example(self.name, cell.id, inputs, known, perturbation, cell.genes if labelled else None)
