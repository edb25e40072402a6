"""Labels without a language model, from the labels and the unlabelled training cells of a prepared folder.

python recipes/benchmarks/labels_baselines.py DATA --split test prints {name: {"accuracy": A, "macro_f1": F}} as JSON.
The labels are those of a column of cells.jsonl, ``--column``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from shared import SPLITS, options
from sklearn.decomposition import TruncatedSVD
from sklearn.linear_model import LogisticRegression
from sklearn.semi_supervised import LabelSpreading

from cellduality_plugin.evaluation.embedding import cell_matrix
from cellduality_plugin.evaluation.metrics.given import RealCells, read_cells
from cellduality_plugin.evaluation.metrics.labels import accuracy, macro_f1
from cellduality_plugin.profiles import Profiles
from cellduality_plugin.vocabulary import Vocabulary

SEED = 0
ROUNDS, UNLABELLED_WEIGHT = 8, 0.3
COMPONENTS, NEIGHBOURS = 10, 20

Floats: TypeAlias = NDArray[np.float64]


def naive_bayes(presence: Any, memberships: Floats, usual: Floats) -> Callable[[Any], Floats]:
    """Return the function from cells x genes (0 or 1) to cells x labels, log-probabilities up to a number by cell.

    ``presence`` are the training cells, sparse; ``memberships``, cells x labels, say how much of each counts for each
    label; every label starts with one cell that has genes as ``usual``, the shares of all training cells in (0, 1).
    """
    cells = memberships.sum(axis=0)
    shares = (np.asarray(memberships.T @ presence) + usual) / (cells[:, None] + 1)
    odds, bias = np.log(shares) - np.log1p(-shares), np.log1p(-shares).sum(axis=1) + np.log(cells / cells.sum())
    return lambda others: np.asarray(others @ odds.T) + bias


def bayes_labels(presence: Any, codes: NDArray[np.int64], others: Any, rounds: int) -> NDArray[np.int64]:
    """Return the codes of ``others`` by naive Bayes on cells whose code is not -1, after EM over the rest."""
    shown, memberships = codes >= 0, (codes[:, None] == np.arange(codes.max() + 1)).astype(float)
    usual = (np.asarray(presence.sum(axis=0)).ravel() + 1) / (presence.shape[0] + 2)
    scores = naive_bayes(presence[shown], memberships[shown], usual)
    for _ in range(rounds if not shown.all() else 0):
        memberships[~shown] = UNLABELLED_WEIGHT * softmax(scores(presence[~shown]), axis=1)
        scores = naive_bayes(presence, memberships, usual)
    return np.asarray(scores(others).argmax(axis=1))


def logistic(features: Any, labels: NDArray[Any], others: Any) -> NDArray[Any]:
    """Return the labels that a logistic regression (L2, C = 1, not tuned) gives to ``others``."""
    return np.asarray(LogisticRegression(C=1.0, max_iter=2000).fit(features, labels).predict(others))


def spread(features: Any, codes: NDArray[np.int64], others: Any) -> NDArray[np.int64]:
    """Return the codes of ``others`` after label spreading from the training cells whose code is not -1."""
    svd = TruncatedSVD(min(COMPONENTS, features.shape[1] - 1), random_state=SEED)
    points = svd.fit_transform(features)
    model = LabelSpreading(kernel="knn", n_neighbors=min(NEIGHBOURS, len(points) - 1), max_iter=200)
    return np.asarray(model.fit(points, codes).predict(svd.transform(others)))


def answers(folder: Path, train: RealCells, others: RealCells, column: str) -> dict[str, NDArray[Any]]:
    """Return the labels that each baseline gives to ``others``; ``column`` names the label set of the profiles."""
    genes, top = Vocabulary.load(folder / "vocabulary.json").genes, max(map(len, train.genes))
    features, asked = (cell_matrix(cells.genes, genes, top) for cells in (train, others))
    presence, asked_presence = (features > 0).astype(float), (asked > 0).astype(float)
    shown, types = np.array(train.labelled), np.array(train.types)
    labels = np.unique(types[shown])
    codes = np.where(shown, np.searchsorted(labels, types), -1)
    found = {
        "logistic regression": logistic(features[shown], types[shown], asked),
        "naive Bayes": labels[bayes_labels(presence, codes, asked_presence, 0)],
        "naive Bayes with EM": labels[bayes_labels(presence, codes, asked_presence, ROUNDS)],
        "label spreading": labels[spread(features, codes, asked)],
        "logistic regression, all labels": logistic(features, types, asked),
    }
    if (path := folder / "profiles.npz").is_file():
        profiles = Profiles.load(path)
        found["tempered EM (profiles)"] = np.array([profiles.likeliest(column, cell) for cell in others.genes])
    return found


if __name__ == "__main__":
    given = options(__doc__, "data", split=SPLITS, column="cell_type")
    train, others = (
        read_cells(given.data / "cells.jsonl", split, columns=(given.column,)) for split in ("train", given.split)
    )
    found = answers(given.data, train, others, given.column)
    scores = {
        name: {"accuracy": accuracy(others.types, labels), "macro_f1": macro_f1(others.types, labels)}
        for name, labels in found.items()
    }
    print(json.dumps(scores, indent=1))
