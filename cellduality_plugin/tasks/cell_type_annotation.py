"""Cell -> type, rebuilt by inpainting: (observed genes, predicted type) -> hidden genes, or all of them."""

from __future__ import annotations

from collections.abc import Mapping

from cellduality_plugin.cell_sentences import sentence
from cellduality_plugin.examples import Value
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.tasks.base import FORMAT_RULE, LabelTask, built_in, choices, many, one
from cellduality_plugin.vocabulary import Vocabulary


@built_in
class CellTypeAnnotation(LabelTask):
    """Name a cell's type (Table 1); the reward is RWJS(hidden, rebuilt), section 3.4.1."""

    name = "cell_type_annotation"
    family = "identity"
    answer = OneOf("cell_type")

    def primal_prompt(self, inputs: Mapping[str, Value], vocabulary: Vocabulary) -> str:
        return (
            "Name the type of a cell from its genes, which are given in descending order of expression.\n"
            f"{choices('types', 'cell_type', vocabulary)}\n{FORMAT_RULE}\n"
            f"Cell: {sentence(many(inputs, 'cell'))}"
        )

    def dual_prompt(self, known: Mapping[str, Value], answer: Value, vocabulary: Vocabulary) -> str:
        if "observed" not in known:
            return (
                f"Write a cell of the given type as {one(known, 'length')} different genes in descending order of "
                f"expression.\n{FORMAT_RULE}\nType: {self.answer.render(answer)}"
            )
        return (
            "Some genes of a cell are hidden. List the hidden genes in descending order of expression.\n"
            f"{FORMAT_RULE}\nType: {self.answer.render(answer)}\nObserved genes: {sentence(many(known, 'observed'))}"
        )
