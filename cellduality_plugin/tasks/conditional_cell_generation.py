"""Type -> cell, rebuilt by naming the type of the generated cell."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.examples import Example, Value
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.tasks.base import CellTask, built_in, one
from cellduality_plugin.tasks.cell_type_annotation import CellTypeAnnotation
from cellduality_plugin.vocabulary import Vocabulary


@built_in
class ConditionalCellGeneration(CellTask):
    """Write a cell of a given type (Table 1); the reward is 1[rebuilt type = type], Eq. 2."""

    name = "conditional_cell_generation"
    family = "identity"
    unknown = OneOf("cell_type")
    needs = ("cell_type",)

    def primal_prompt(self, inputs: Mapping[str, Value], vocabulary: Vocabulary) -> str:
        # The dual of naming the type of a cell of which nothing is seen: one skill, asked in one wording.
        return CellTypeAnnotation().dual_prompt({"length": inputs["length"]}, one(inputs, "cell_type"), vocabulary)

    def dual_prompt(self, known: Mapping[str, Value], answer: Value, vocabulary: Vocabulary) -> str:
        # The dual of writing a cell is the annotation task itself: one skill, asked in one wording.
        return CellTypeAnnotation().primal_prompt({"cell": answer}, vocabulary)

    def example(self, cell: Cell, *, hidden: float, labelled: bool, rng: np.random.Generator) -> Example:
        inputs: dict[str, Value] = {"cell_type": cell.obs["cell_type"], "length": str(len(cell.genes))}
        gold = cell.genes if labelled else None
        return Example(self.name, cell.id, inputs, {}, cell.obs["cell_type"], gold)
