"""Fitting class profiles: naive Bayes on which genes a cell expresses, refined on the cells that show no label.

A logistic regression on the labelled cells stands beside it, as far as labels that are held out become likelier by it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import kneighbors_graph
from sklearn.utils.extmath import randomized_svd

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.profiles import Profile, Profiles
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.rows import Asked

PRIOR_CELLS = 1.0  # how many cells like the mean of all count towards every label
TEMPER = 0.25  # what log-likelihoods are multiplied by while labels are guessed: genes are not independent
ROUNDS = 5  # rounds of expectation-maximisation; more of them forget the labels
NEIGHBOURS, COMPONENTS, SMOOTHING = 10, 20, 0.5
"""A guess is moved twice by this share towards those of its nearest cells in so many components of the ranked genes."""
FOLDS, HELD_OUT = 10, 500
"""Parts of the labelled cells that are held out in turn, and cells of a part that are looked at, at most."""
SCALES, USUAL_SCALE, SCALE_SPREAD = np.geomspace(0.01, 10, 61), 0.08, 0.3
"""Scales of the log-scores that are tried; the prior of the log of the best is Student-t (3)."""
MOST_UNLABELLED = 20_000  # cells without label that are learnt from, at most
MIXTURES = (0.0, 0.5, 1.0)  # weights of the logistic regression that are tried
MOST_LOGISTIC = 20_000  # known cells times labels, past which labels are many and it is not fitted
UNKNOWN = -1

Matrix: TypeAlias = Any  # a sparse matrix of float32 in rows (CSR); scipy has no types


def fit_profiles(
    labelled: Sequence[Cell],
    unlabelled: Sequence[Cell],
    tasks: Sequence[DualTask],
    vocabulary: Vocabulary,
    *,
    asked: Asked,
) -> Profiles:
    """Return a profile of every label set that ``tasks`` speak of, fitted to training cells alone.

    Annotations (``Cell.obs``) count where a cell is ``labelled`` and are read nowhere else; what the experimenter set
    (``Cell.condition``) is known of every cell. A cell is held against its control where all tasks that speak of the
    label set show the control. The genes of ``vocabulary`` are the columns, its labels the rows; a label that no known
    cell has gets the mean profile. A label set is learnt from the cells that tasks which speak of it are ``asked``
    about; one too large for :meth:`Vocabulary.tables` has no profiles. No randomness: the same cells in the same order
    give the same profiles.
    """
    by_kind = {}
    for kind in sorted({kind for task in tasks for kind in task.kinds if vocabulary.tables(kind)}):
        speaking = [task for task in tasks if kind in task.kinds]
        shown, others = (
            [cell for cell in cells if any(asked(task, cell) for task in speaking)] for cells in (labelled, unlabelled)
        )
        known = [*shown, *(cell for cell in others if kind in cell.condition)]
        rest = [cell for cell in others if kind not in cell.condition]
        rest = rest[:: math.ceil(len(rest) / MOST_UNLABELLED) or 1]
        places = {label: place for place, label in enumerate(vocabulary.labels[kind])}
        labels = np.array([places[cell.value(kind)] for cell in known] + [UNKNOWN] * len(rest), dtype=np.int64)
        paired = all("control" in task.needs for task in speaking)
        evidence = _Evidence.of(_ranks([*known, *rest], vocabulary.genes, paired), labels, len(places))
        by_kind[kind] = Profile(vocabulary.labels[kind], *_fit(evidence), paired)
    return Profiles(vocabulary.genes, by_kind)


@dataclass(frozen=True)
class _Evidence:
    """Cells, and what is known of them."""

    present: Matrix  # cells x columns of the profile: 1 where a cell speaks of the gene
    mean: NDArray[np.float64]  # of ``present`` over all cells; no 0 and no 1
    near: Matrix | None  # cells x cells: the mean over the nearest cells; None where every label is known
    labels: NDArray[np.int64]  # the place of each cell's label, or UNKNOWN
    count: int  # of labels

    @classmethod
    def of(cls, ranks: Matrix, labels: NDArray[np.int64], count: int) -> _Evidence:
        present = (ranks > 0).astype(np.float32)
        mean = (np.asarray(present.sum(axis=0), dtype=np.float64).ravel() + 0.5) / (present.shape[0] + 1)
        near = _near(ranks) if (labels == UNKNOWN).any() else None
        return cls(present, mean, near, labels, count)

    def known(self) -> Matrix:
        """Return cells x labels: 1 where the label is known, nothing elsewhere."""
        known = np.flatnonzero(self.labels != UNKNOWN)
        ones = np.ones(len(known), dtype=np.float32)
        return scipy.sparse.csr_matrix((ones, (known, self.labels[known])), shape=(len(self.labels), self.count))


def _ranks(cells: Sequence[Cell], genes: Sequence[str], paired: bool) -> Matrix:
    """Return cells x columns of a profile: 1 / log2(rank + 1) of the genes that a cell speaks of, nothing elsewhere."""
    places = {gene: place for place, gene in enumerate(genes)}
    rows, columns, values = [], [], []
    for row, cell in enumerate(cells):
        sides = [(cell.genes, cell.control), (cell.control, cell.genes)] if paired else [(cell.genes, ())]
        for side, (here, other) in enumerate(sides):
            there = frozenset(other)
            for rank, gene in enumerate(here, start=1):
                if gene in places and gene not in there:
                    rows.append(row)
                    columns.append(side * len(genes) + places[gene])
                    values.append(1 / math.log2(rank + 1))
    shape = (len(cells), len(genes) * (1 + paired))
    return scipy.sparse.csr_matrix((np.array(values, dtype=np.float32), (rows, columns)), shape=shape)


def _near(ranks: Matrix) -> Matrix:
    """Return cells x cells, rows that add up to 1: each cell's neighbours, and the cells whose neighbour it is."""
    cells = ranks.shape[0]
    if cells < 2:
        return scipy.sparse.identity(cells, dtype=np.float32, format="csr")
    left, strength, _ = randomized_svd(ranks, n_components=min(COMPONENTS, *ranks.shape), random_state=0)
    graph = kneighbors_graph(left * strength, min(NEIGHBOURS, cells - 1))
    graph = graph.maximum(graph.T)
    return (scipy.sparse.diags(1 / np.asarray(graph.sum(axis=1)).ravel()) @ graph).astype(np.float32).tocsr()


def _fit(evidence: _Evidence) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (weights, bias) of calibrated log-scores.

    Cells without label can mislead: where types differ more than exposures do, they show the types. They count if
    labels that were held out become likelier by it, and so does the logistic regression.
    """
    scale, mixture, rounds = _held_out(evidence, (0, ROUNDS) if evidence.near is not None else (0,))
    parts = zip(_naive_bayes(evidence, rounds), _logistic(evidence), strict=True)
    weights, bias = (np.round(scale * bayes + mixture * logits, 4).astype(np.float32) for bayes, logits in parts)
    return weights, bias


def _logistic(evidence: _Evidence) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (weights, bias) of the logits of a logistic regression (L2, C = 1, balanced) on the cells of known label.

    A label that no known cell has is as unlikely as the least likely. All is 0 where fewer than two labels are known,
    or past :data:`MOST_LOGISTIC`.
    """
    weights, bias = np.zeros((evidence.count, evidence.present.shape[1])), np.zeros(evidence.count)
    known = np.flatnonzero(evidence.labels != UNKNOWN)
    labels = evidence.labels[known]
    if len(np.unique(labels)) > 1 and len(known) * evidence.count <= MOST_LOGISTIC:
        model = LogisticRegression(C=1.0, max_iter=300, class_weight="balanced").fit(evidence.present[known], labels)
        found, at = model.coef_, model.intercept_
        if len(model.classes_) == 2:  # of which scikit-learn keeps one side
            found, at = np.vstack([-found, found]) / 2, np.concatenate([-at, at]) / 2
        bias[:] = at.min()
        weights[model.classes_], bias[model.classes_] = found, at
    return weights, bias


def _naive_bayes(evidence: _Evidence, rounds: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (weights, bias) of the log-likelihoods, after ``rounds`` of expectation-maximisation."""
    given = evidence.known()
    weights, bias = _profile(evidence, given)
    if not rounds or evidence.near is None:
        return weights, bias
    known, dense = evidence.labels != UNKNOWN, given.toarray()
    for _ in range(rounds):
        scores = TEMPER * (evidence.present @ weights.T + bias)
        possible = np.where(dense.any(axis=0), scores, -np.inf)  # no cell is of an unknown label
        guesses = np.exp(log_softmax(possible, axis=1))
        guesses[known] = dense[known]
        for _ in range(2):
            guesses = (1 - SMOOTHING) * guesses + SMOOTHING * (evidence.near @ guesses)
        guesses[known] = dense[known]
        weights, bias = _profile(evidence, scipy.sparse.csr_matrix(guesses))
    return weights, bias


def _profile(evidence: _Evidence, shares: Matrix) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (weights, bias) of Bernoulli naive Bayes, from how much of each cell every label has (cells x labels)."""
    cells = np.asarray(shares.sum(axis=0), dtype=np.float64).reshape(-1, 1)
    chances = ((shares.T @ evidence.present).toarray() + PRIOR_CELLS * evidence.mean) / (cells + PRIOR_CELLS)
    return np.log(chances) - np.log1p(-chances), np.log1p(-chances).sum(axis=1)


def _held_out(evidence: _Evidence, tried: Sequence[int]) -> tuple[float, float, int]:
    """Return (scale, mixture, rounds) under which labels that were held out are likeliest.

    Mixtures are of :data:`MIXTURES`, rounds of those that are ``tried``; the scale is that of the highest posterior. A
    cell is passed over if it is the only known one of its label. Without any cell left, the scale is the usual one.
    """
    folds, known = np.full(len(evidence.labels), FOLDS), evidence.labels != UNKNOWN
    for label in range(evidence.count):
        places = np.flatnonzero(evidence.labels == label)
        folds[places] = np.arange(len(places)) % FOLDS if len(places) > 1 else FOLDS
    ways = list(itertools.product(tried, MIXTURES))
    likelihoods = np.zeros((len(ways), len(SCALES)))
    for fold in range(FOLDS):
        out = np.flatnonzero(known & (folds == fold))
        if len(out):
            seen = replace(evidence, labels=np.where(folds == fold, UNKNOWN, evidence.labels))
            out = out[:: math.ceil(len(out) / HELD_OUT)]
            fitted = (*(_naive_bayes(seen, rounds) for rounds in tried), _logistic(seen))
            *of_bayes, of_logits = (evidence.present[out] @ weights.T + bias for weights, bias in fitted)
            truth = np.arange(len(out)), evidence.labels[out]
            for own, (scores, mixture) in zip(likelihoods, itertools.product(of_bayes, MIXTURES), strict=True):
                own += [log_softmax(scale * scores + mixture * of_logits, axis=1)[truth].sum() for scale in SCALES]
    belief = -2 * np.log1p((np.log(SCALES / USUAL_SCALE) / SCALE_SPREAD) ** 2 / 3)
    best = int(likelihoods.max(axis=1).argmax())
    rounds, mixture = ways[best]
    return float(SCALES[(likelihoods[best] + belief).argmax()]), mixture, rounds
