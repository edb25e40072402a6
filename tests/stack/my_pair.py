"""A dual pair of one's own: observed genes -> genes the measurement missed, judged without any label."""

from cellduality_plugin.cell_sentences import hide_genes, sentence
from cellduality_plugin.examples import Example
from cellduality_plugin.parsing import Genes
from cellduality_plugin.similarity import rank_weighted_jaccard
from cellduality_plugin.tasks.base import FORMAT_RULE, DualTask


class DropoutRecovery(DualTask):
    """Name the genes lost to dropout; the reward is how well the observed genes follow from the answer."""

    name = "dropout_recovery"
    answer = Genes()
    unknown = Genes()

    def primal_prompt(self, inputs, vocabulary):
        return (
            "The measurement of a cell missed some genes. List the missed genes in descending order of expression.\n"
            f"{FORMAT_RULE}\nObserved genes: {sentence(inputs['observed'])}"
        )

    def dual_prompt(self, known, answer, vocabulary):
        return (
            "Some genes of a cell are covered. List the covered genes in descending order of expression.\n"
            f"{FORMAT_RULE}\nMissed genes: {sentence(answer)}\nOther genes: {sentence(known['open'])}"
        )

    def example(self, cell, *, hidden, labelled, rng):
        observed, missed = hide_genes(cell.genes, 0.25, rng)
        shown, covered = hide_genes(observed, hidden, rng)
        return Example(
            self.name, cell.id, {"observed": observed}, {"open": shown}, covered, missed if labelled else None
        )

    def similarity(self, unknown, rebuilt):
        return rank_weighted_jaccard(unknown, rebuilt)
