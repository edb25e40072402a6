"""Labels without a language model, learned from the labelled cells that supervised fine-tuning saw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.embedding import cell_matrix
from cellduality_plugin.evaluation.real_cells import RealCells


def majority_labels(train: RealCells, count: int) -> list[str]:
    """Return the commonest type of the labelled cells ``count`` times; of equally common ones the first by name."""
    counts = Counter(_labelled(train)[1])
    return [min(counts, key=lambda label: (-counts[label], label))] * count


def logistic_labels(train: RealCells, cells: Sequence[Sequence[str]], genes: Sequence[str]) -> list[str]:
    """Return the type that a logistic regression on ranks gives each of ``cells``.

    Parameters
    ----------
    train
        Real training cells; only the labelled ones are used.
    cells
        Ranked genes to annotate.
    genes
        The vocabulary.

    Notes
    -----
    Features are those of :func:`cellduality_plugin.evaluation.embedding.cell_matrix`: no more than a prompt shows.
    L2 penalty with C = 1, not tuned.
    """
    from sklearn.linear_model import LogisticRegression

    known, types = _labelled(train)
    if len(set(types)) < 2:
        return majority_labels(train, len(cells))
    top = max(len(cell) for cell in known)
    model = LogisticRegression(C=1.0, max_iter=2000).fit(cell_matrix(known, genes, top), types)
    return [str(label) for label in model.predict(cell_matrix(cells, genes, top))]


def _labelled(train: RealCells) -> tuple[list[tuple[str, ...]], list[str]]:
    chosen = [index for index, labelled in enumerate(train.labelled) if labelled]
    if not chosen:
        raise CellDualityError("no labelled training cell", where="cells.jsonl", mend="prepare with labelled cells")
    return [train.genes[index] for index in chosen], [train.types[index] for index in chosen]
