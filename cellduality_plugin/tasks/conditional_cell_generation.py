"""Type -> cell, rebuilt by naming the type of the generated cell."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.examples import Example, Value
from cellduality_plugin.parsing import Answer, Genes, OneOf
from cellduality_plugin.similarity import exact_match
from cellduality_plugin.tasks.base import FORMAT_RULE, DualTask, one
from cellduality_plugin.tasks.cell_type_annotation import CellTypeAnnotation
from cellduality_plugin.vocabulary import Vocabulary


class ConditionalCellGeneration(DualTask):
    """Write a cell of a given type (Table 1); the reward is 1[rebuilt type = type], Eq. 2."""

    name = "conditional_cell_generation"
    answer = Genes()
    unknown = OneOf("cell_type")
    needs = ("cell_type",)

    def primal_prompt(self, inputs: Mapping[str, Value], vocabulary: Vocabulary) -> str:
        return (
            f"Write a cell of the given type as {inputs['length']} different genes in descending order of expression.\n"
            f"{FORMAT_RULE}\nType: {one(inputs, 'cell_type')}"
        )

    def dual_prompt(self, known: Mapping[str, Value], answer: Value, vocabulary: Vocabulary) -> str:
        # The dual of writing a cell is the annotation task itself: one skill, asked in one wording.
        return CellTypeAnnotation().primal_prompt({"cell": answer}, vocabulary)

    def example(self, cell: Cell, *, hidden: float, labelled: bool, rng: np.random.Generator) -> Example:
        inputs: dict[str, Value] = {"cell_type": cell.obs["cell_type"], "length": str(len(cell.genes))}
        gold = cell.genes if labelled else None
        return Example(self.name, cell.id, inputs, {}, cell.obs["cell_type"], gold)

    def similarity(self, unknown: Value, rebuilt: Value) -> float:
        return exact_match(unknown, rebuilt)

    def validity(self, example: Example, answer: Answer) -> float:
        """Return the share of the cell that holds a different gene of the vocabulary.

        Repeats, strangers and missing genes lower it; a list longer than was asked for is measured by its own length.
        """
        genes = len(answer.value) if answer.value else 0
        return genes / max(answer.listed, int(one(example.inputs, "length")), 1)
