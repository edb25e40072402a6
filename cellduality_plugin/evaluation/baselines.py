"""Columns without a language model: labels, cells and responses made from the cells that fine-tuning saw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import compress, product
from typing import TypeAlias

import numpy as np
from scipy.spatial.distance import cdist

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.distances import Vector, nearest_labels
from cellduality_plugin.evaluation.embedding import cell_matrix
from cellduality_plugin.evaluation.metrics.given import RealCells, Reference
from cellduality_plugin.evaluation.predictions import Prediction, PredictionSettings, Rows
from cellduality_plugin.evaluation.sections import Section
from cellduality_plugin.examples import Example, Value
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.perturbations import CONTROL
from cellduality_plugin.profiles import Profiles
from cellduality_plugin.seeds import request_seed
from cellduality_plugin.tasks.base import many
from cellduality_plugin.vocabulary import Vocabulary

MAJORITY, LOGISTIC, TRANSFER, PROFILES = "majority", "logistic regression", "k-NN transfer", "class profiles"
RESAMPLED, CLASS_MEAN = "training cells", "class mean"
NO_CHANGE, MEAN_SHIFT = "no change", "mean shift"
BASELINES = (PROFILES, LOGISTIC, TRANSFER, MAJORITY, RESAMPLED, CLASS_MEAN, NO_CHANGE, MEAN_SHIFT)
"""In the order of their columns."""

Cell: TypeAlias = tuple[str, ...]
Space: TypeAlias = Callable[[Sequence[Cell]], Vector]


def baselines(
    section: Section, vocabulary: Vocabulary, settings: PredictionSettings, profiles: Profiles | None
) -> dict[str, list[Prediction]]:
    """Return the answers of every baseline to the rows of ``section``, by column.

    Of labels, to the rows that show a cell, of which the true label is known; none where it writes no cells.
    """
    reference, train = section.reference, section.reference.train
    if section.writes_responses:
        return response_baselines(section.rows, reference)
    if section.writes_cells and any(train.labelled):
        return cell_baselines(train, section.rows, vocabulary.genes, settings.samples, settings.seed)
    if not isinstance(section.pair.answer, OneOf):
        return {}
    kind = section.pair.answer.kind
    rows = {key: e for key, e in sorted(section.rows.items()) if isinstance(e.gold, str) and "cell" in e.inputs}
    shown = [tuple(e.inputs["cell"]) for e in rows.values()]
    answers = {
        TRANSFER: transferred_labels(train, shown, reference.embedding, reference.neighbours[0]),
        MAJORITY: majority_labels(train, len(shown)),
    }
    if vocabulary.tables(kind):
        answers[LOGISTIC] = logistic_labels(train, shown, vocabulary.genes)
    if profiles is not None and kind in profiles.by_kind:  # these alone have seen the cells without a label
        answers[PROFILES] = [
            profiles.likeliest(kind, many(e.inputs, "cell"), e.inputs.get("control", ())) for e in rows.values()
        ]
    return {
        name: [_answer(*key, 0, e, label) for (key, e), label in zip(rows.items(), predicted, strict=True)]
        for name, predicted in answers.items()
    }


def majority_labels(train: RealCells, count: int) -> list[str]:
    """Return the commonest type of the labelled cells ``count`` times; of equally common ones the first by name."""
    counts = Counter(_labelled(train)[1])
    return [min(counts, key=lambda label: (-counts[label], label))] * count


def logistic_labels(train: RealCells, cells: Sequence[Sequence[str]], genes: Sequence[str]) -> list[str]:
    """Return the type that a logistic regression on ranks (L2, C = 1, not tuned) gives each of ``cells``."""
    from sklearn.linear_model import LogisticRegression

    known, types = _labelled(train)
    if len(set(types)) < 2:
        return majority_labels(train, len(cells))
    top = max(len(cell) for cell in known)
    model = LogisticRegression(C=1.0, max_iter=2000).fit(cell_matrix(known, genes, top), types)
    return [str(label) for label in model.predict(cell_matrix(cells, genes, top))]


def transferred_labels(train: RealCells, cells: Sequence[Cell], space: Space, k: int) -> list[str]:
    """Return the type that most of the ``k`` (or all) nearest labelled training cells have, for each of ``cells``."""
    known, types = _labelled(train)
    return nearest_labels(cdist(space(cells), space(known)), types, min(k, len(known))) if cells else []


def cell_baselines(
    train: RealCells, rows: Rows, genes: Sequence[str], samples: int, seed: int
) -> dict[str, list[Prediction]]:
    """Return the answers of two baselines that know the labelled training cells of the type or state a row asks for.

    "training cells" are such cells, drawn with replacement; those of "class mean" are drawn gene by gene from their
    mean profile, ``inputs["length"]`` of a row or as many as the longest training cell has. A kind without a cell has
    no answer. What a row gets does not depend on the other rows.
    """
    top, cells_of = max(map(len, train.genes)), train.grouped(train.states or train.types, labelled=True)
    means = {kind: mean_profile(cells, genes, top) for kind, cells in cells_of.items()}
    made: dict[str, list[Prediction]] = {RESAMPLED: [], CLASS_MEAN: []}
    for (task, row), example in sorted(rows.items()):
        stated, kind = example.inputs.get("length"), str(example.unknown)
        length = int(stated) if isinstance(stated, str) and stated.isdecimal() else top
        for name, sample in product(made, range(samples)):
            rng = np.random.default_rng(request_seed(seed, name, task, row, sample))
            drawn: Cell = ()
            if kind in cells_of and name == RESAMPLED:
                drawn = cells_of[kind][rng.integers(len(cells_of[kind]))]
            elif kind in cells_of:
                drawn = plackett_luce(means[kind], length, genes, rng)
            made[name].append(_answer(task, row, sample, example, drawn, drawn=True))
    return made


def plackett_luce(worth: Vector, length: int, genes: Sequence[str], rng: np.random.Generator) -> tuple[str, ...]:
    """Return ``length`` different genes, drawn in turn with chances in proportion to ``worth`` (0: never)."""
    able = np.flatnonzero(worth > 0)
    # The arrival times of independent clocks that tick at the rate of each gene's worth.
    times = rng.exponential(size=len(able)) / worth[able]
    return tuple(genes[place] for place in able[np.argsort(times, kind="stable")[:length]])


def _answer(task: str, row: str, sample: int, example: Example, answer: Value, *, drawn: bool = False) -> Prediction:
    read, failure, validity = answer or None, "" if answer else "no_training_cell", float(bool(answer))
    p = Prediction(row, task, sample, example.unknown, example.gold, "", read, failure, len(answer))
    return replace(p, validity=validity, drawn=drawn)


def response_baselines(rows: Rows, reference: Reference) -> dict[str, list[Prediction]]:
    """Return the answers of two baselines: the control cell, and it moved by the other types' mean shift or its own."""
    kinds, space = reference.held_out.type_of, reference.embedding
    shift_to = cache(partial(mean_shift, reference.train.by_state(labelled=True), space.genes, space.top))
    made: dict[str, list[Prediction]] = {NO_CHANGE: [], MEAN_SHIFT: []}
    for (task, row), example in rows.items():
        control, state = many(example.inputs, "control"), str(example.unknown)
        shifts = (shift_to(state, leave_out) for leave_out in (kinds[row], ""))
        shift = next((shift for shift in shifts if shift is not None), None)
        moved = control if shift is None else moved_cell(control, shift, space.genes, space.top)
        made[NO_CHANGE].append(_answer(task, row, 0, example, control))
        made[MEAN_SHIFT].append(_answer(task, row, 0, example, moved))
    return made


def mean_profile(cells: Sequence[Sequence[str]], genes: Sequence[str], top: int) -> Vector:
    """Return the mean weight of every gene over ``cells``, each in [0, 1]: one value a gene."""
    return np.asarray(cell_matrix(cells, genes, top).mean(axis=0)).ravel()


def mean_shift(
    cells: Mapping[tuple[str, str], Sequence[Cell]], genes: Sequence[str], top: int, state: str, leave_out: str
) -> Vector | None:
    """Return the mean shift to ``state`` from the control over cell types but ``leave_out``; None if none has both.

    ``cells`` are by (cell type, state).
    """
    shifts = [
        mean_profile(own, genes, top) - mean_profile(cells[kind, CONTROL], genes, top)
        for (kind, other), own in sorted(cells.items())
        if other == state and kind != leave_out and own and cells.get((kind, CONTROL))
    ]
    return np.asarray(np.mean(shifts, axis=0)) if shifts else None


def moved_cell(cell: Sequence[str], shift: Vector, genes: Sequence[str], top: int) -> tuple[str, ...]:
    """Return ``cell`` after ``shift`` of its profile: as many genes, of the highest weight; equals as in ``genes``."""
    weights, count = shift + cell_matrix([cell], genes, top).toarray()[0], min(len(cell), top)
    return tuple(genes[index] for index in np.argsort(-weights, kind="stable")[:count])


def _labelled(train: RealCells) -> tuple[list[tuple[str, ...]], list[str]]:
    genes, types = list(compress(train.genes, train.labelled)), list(compress(train.types, train.labelled))
    if not types:
        hint = "prepare with labelled cells"
        raise CellDualityError("no labelled training cell", code="no-labels", where="cells.jsonl", hint=hint)
    return genes, types
