"""Labels and cells without a language model, made from the labelled cells that supervised fine-tuning saw.

The baselines of perturbation responses, no change and the mean shift of other types, are in
:mod:`cellduality_plugin.evaluation.responses`. scGen is not among them: beside torch 2.13.0, numpy 2.3.5 and
statsmodels 0.15.0 scvi-tools 1.4.2 installs and imports but has no scGen, and pertpy 1.0.3, which has one on JAX,
installs (38 packages, and 13 of scvi-tools) but cannot be imported: it asks statsmodels for
``sandbox.stats.multicomp.multipletests``, which is gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.distances import nearest_labels
from cellduality_plugin.evaluation.embedding import cell_matrix
from cellduality_plugin.evaluation.predictions import Prediction, Rows
from cellduality_plugin.evaluation.real_cells import RealCells
from cellduality_plugin.examples import Value
from cellduality_plugin.seeds import request_seed

MAJORITY, LOGISTIC, TRANSFER = "majority", "logistic regression", "k-NN transfer"
RESAMPLED, CLASS_MEAN = "training cells", "class mean"

Cells = Sequence[tuple[str, ...]]


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


def transferred_labels(
    train: RealCells, cells: Cells, space: Callable[[Cells], NDArray[np.float64]], k: int
) -> list[str]:
    """Return the type that most of the ``k`` nearest labelled training cells have, for each of ``cells``.

    Parameters
    ----------
    train
        Real training cells; only the labelled ones vote.
    cells
        Ranked genes to annotate.
    space
        From ranked genes to points: cells x dimensions. Distances are Euclidean.
    k
        How many vote, uniformly; all where there are fewer. Of equally many votes the nearest cell's type wins.
    """
    known, types = _labelled(train)
    if not cells:
        return []
    named = nearest_labels(cdist(space(cells), space(known)), types, min(k, len(known)))
    return [str(label) for label in named]


def resampled_cells(train: RealCells, rows: Rows, samples: int, seed: int) -> list[Prediction]:
    """Return for each row real labelled training cells of the type it asks for: what memory alone would score.

    Parameters
    ----------
    train
        Real training cells; only the labelled ones are drawn, with replacement.
    rows
        By (task, row id); ``unknown`` is the type, or state, that is asked for. Without a cell of it there is none.
    samples, seed
        Cells for each row, and the seed; what a row gets does not depend on the other rows.
    """
    cells_of = _by_condition(train)

    def draw(kind: str, length: int, rng: np.random.Generator) -> tuple[str, ...]:
        found = cells_of.get(kind)
        return found[rng.integers(len(found))] if found else ()

    return _answers(RESAMPLED, train, rows, samples, seed, draw)


def class_mean_cells(train: RealCells, rows: Rows, genes: Sequence[str], samples: int, seed: int) -> list[Prediction]:
    """Return for each row cells drawn gene by gene from the mean profile of the type it asks for.

    A cell's genes are drawn one after the other without replacement, each with a chance in proportion to its mean
    weight over the labelled training cells of the type: a Plackett-Luce model, the ranked form of a multinomial with
    the mean of the class. It knows which genes a type has, and nothing of which go together.

    Parameters
    ----------
    train, rows, samples, seed
        As in :func:`resampled_cells`; ``inputs["length"]`` of a row is how many genes are drawn, as many as the
        longest training cell has where a row does not say.
    genes
        The vocabulary.

    Notes
    -----
    Weights are those of :func:`cellduality_plugin.evaluation.embedding.rank_profile`: a cell sentence holds ranks.
    """
    top = max(len(cell) for cell in train.genes)
    means = {
        kind: np.asarray(cell_matrix(cells, genes, top).mean(axis=0)).ravel()
        for kind, cells in _by_condition(train).items()
    }

    def draw(kind: str, length: int, rng: np.random.Generator) -> tuple[str, ...]:
        return plackett_luce(means[kind], length, genes, rng) if kind in means else ()

    return _answers(CLASS_MEAN, train, rows, samples, seed, draw)


def plackett_luce(
    worth: NDArray[np.float64], length: int, genes: Sequence[str], rng: np.random.Generator
) -> tuple[str, ...]:
    """Return ``length`` different genes, drawn in turn with chances in proportion to ``worth``.

    Parameters
    ----------
    worth
        One value >= 0 a gene; genes of none are never drawn, so that the cell may be shorter.
    length
        Genes at the most.
    genes
        In the order of ``worth``.

    Examples
    --------
    >>> sorted(plackett_luce(np.array([1.0, 0.0, 2.0]), 3, ("A", "B", "C"), np.random.default_rng(0)))
    ['A', 'C']
    """
    able = np.flatnonzero(worth > 0)
    # The arrival times of independent clocks that tick at the rate of each gene's worth.
    times = rng.exponential(size=len(able)) / worth[able]
    return tuple(genes[place] for place in able[np.argsort(times, kind="stable")[:length]])


def _answers(
    name: str,
    train: RealCells,
    rows: Rows,
    samples: int,
    seed: int,
    draw: Callable[[str, int, np.random.Generator], tuple[str, ...]],
) -> list[Prediction]:
    made = []
    top = max(len(cell) for cell in train.genes)
    for (task, row), example in sorted(rows.items()):
        stated = example.inputs.get("length")
        length = int(stated) if isinstance(stated, str) and stated.isdecimal() else top
        for sample in range(samples):
            rng = np.random.default_rng(request_seed(seed, name, task, row, sample))
            cell: Value | None = draw(str(example.unknown), length, rng) or None
            failure = "" if cell else "no_training_cell"
            answer = Prediction(row, task, sample, example.unknown, example.gold, "", cell, failure, drawn=True)
            made.append(answer if cell is None else _whole(answer, len(cell)))
    return made


def _whole(answer: Prediction, listed: int) -> Prediction:
    return replace(answer, listed=listed, validity=1.0)


def _by_condition(train: RealCells) -> dict[str, list[tuple[str, ...]]]:
    """Return the labelled cells by what a row may ask for: their state where cells have one, else their type."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for cell, condition, labelled in zip(train.genes, train.states or train.types, train.labelled, strict=True):
        if labelled:
            found.setdefault(condition, []).append(cell)
    return found


def _labelled(train: RealCells) -> tuple[list[tuple[str, ...]], list[str]]:
    chosen = [index for index, labelled in enumerate(train.labelled) if labelled]
    if not chosen:
        raise CellDualityError("no labelled training cell", where="cells.jsonl", mend="prepare with labelled cells")
    return [train.genes[index] for index in chosen], [train.types[index] for index in chosen]
