"""Cell -> type, rebuilt by inpainting: (observed genes, predicted type) -> hidden genes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cellduality_plugin.cell_sentences import Cell, hide_genes, sentence
from cellduality_plugin.examples import Example, Value
from cellduality_plugin.parsing import Genes, OneOf, bulleted
from cellduality_plugin.similarity import rank_weighted_jaccard
from cellduality_plugin.tasks.base import FORMAT_RULE, DualTask, many
from cellduality_plugin.vocabulary import Vocabulary


class CellTypeAnnotation(DualTask):
    """Name a cell's type (Table 1); the reward is RWJS(hidden, rebuilt), section 3.4.1."""

    name = "cell_type_annotation"
    answer = OneOf("cell_type")
    unknown = Genes()

    def primal_prompt(self, inputs: Mapping[str, Value], vocabulary: Vocabulary) -> str:
        return (
            "Name the type of a cell from its genes, which are given in descending order of expression.\n"
            f"The types are:\n{bulleted(vocabulary.labels['cell_type'])}\n{FORMAT_RULE}\n"
            f"Cell: {sentence(many(inputs, 'cell'))}"
        )

    def dual_prompt(self, known: Mapping[str, Value], answer: Value, vocabulary: Vocabulary) -> str:
        return (
            "Some genes of a cell are hidden. List the hidden genes in descending order of expression.\n"
            f"{FORMAT_RULE}\nType: {self.answer.render(answer)}\nObserved genes: {sentence(many(known, 'observed'))}"
        )

    def example(self, cell: Cell, *, hidden: float, labelled: bool, rng: np.random.Generator) -> Example:
        seen, unseen = hide_genes(cell.genes, hidden, rng)
        gold = cell.obs["cell_type"] if labelled else None
        return Example(self.name, cell.id, {"cell": cell.genes}, {"observed": seen}, unseen, gold)

    def similarity(self, unknown: Value, rebuilt: Value) -> float:
        return rank_weighted_jaccard(unknown, rebuilt)
