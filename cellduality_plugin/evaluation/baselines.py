"""Columns without a language model: labels, cells and responses made from the cells that fine-tuning saw, real cells.

scGen is not among them: scvi-tools 1.4.2 has none, and pertpy 1.0.3, which has one on JAX, cannot be imported beside
torch 2.13.0, numpy 2.3.5 and statsmodels 0.15.0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.distances import nearest_labels
from cellduality_plugin.evaluation.embedding import cell_matrix
from cellduality_plugin.evaluation.generated import REAL
from cellduality_plugin.evaluation.metrics import cells, labels, responses
from cellduality_plugin.evaluation.metrics.given import Cells, RealCells, Reference
from cellduality_plugin.evaluation.metrics.registry import BY_CONSTRUCTION, Measurement
from cellduality_plugin.evaluation.metrics.responses import Responses
from cellduality_plugin.evaluation.predictions import Prediction, PredictionSettings, Rows
from cellduality_plugin.evaluation.sections import Section
from cellduality_plugin.examples import Example
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
Vector: TypeAlias = NDArray[np.float64]
Space: TypeAlias = Callable[[Sequence[Cell]], Vector]


def baseline_columns(
    section: Section, vocabulary: Vocabulary, settings: PredictionSettings, profiles: Profiles | None
) -> dict[str, dict[str, Measurement]]:
    """Return the metrics of baselines and of real cells, by column."""
    if isinstance(section.pair.answer, OneOf):
        return _label_columns(section, section.pair.answer.kind, vocabulary, profiles)
    if not section.writes_cells:
        return {}
    reference = section.reference
    rows = dict(sorted(section.rows.items()))  # as predictions are
    asked = [reference.held_out.name_of.get(row, str(e.unknown)) for (_, row), e in rows.items()]
    found = {REAL: cells.measure(Cells.of_real(asked, reference))}
    made: dict[str, list[Prediction]] = {}
    if section.writes_responses:
        found[REAL] |= responses.measure(Responses.of_real(reference))
        made = response_baselines(rows, reference)
    elif any(reference.train.labelled):
        made = cell_baselines(reference.train, rows, vocabulary.genes, settings.samples, settings.seed)
    for name, predictions in made.items():
        found[name] = measure_cells(predictions, section)
        if all(p.answer for p in predictions):  # real genes, each once, by any baseline
            for key in ("validity", "duplicates"):
                found[name][key] = replace(found[name][key], interval=None, note=BY_CONSTRUCTION)
    return found


def _label_columns(
    section: Section, kind: str, vocabulary: Vocabulary, profiles: Profiles | None
) -> dict[str, dict[str, Measurement]]:
    reference, train = section.reference, section.reference.train
    rows = [e for _, e in sorted(section.rows.items()) if isinstance(e.gold, str) and "cell" in e.inputs]
    gold, shown = [str(e.gold) for e in rows], [tuple(e.inputs["cell"]) for e in rows]
    answers = {
        TRANSFER: transferred_labels(train, shown, reference.embedding, reference.neighbours[0]),
        MAJORITY: majority_labels(train, len(shown)),
    }
    if vocabulary.tables(kind):
        answers[LOGISTIC] = logistic_labels(train, shown, vocabulary.genes)
    if profiles is not None and kind in profiles.by_kind:  # these alone have seen the cells without a label
        answers[PROFILES] = [
            profiles.likeliest(kind, many(e.inputs, "cell"), e.inputs.get("control", ())) for e in rows
        ]
    shared = section.shared.names if section.shared else ()
    return {
        name: labels.measure(reference, section.comparable(gold, predicted), shared=shared)
        for name, predicted in answers.items()
    }


def measure_cells(made: Sequence[Prediction], section: Section) -> dict[str, Measurement]:
    """Return the metrics of written cells, and of responses where they are such."""
    found = cells.measure(Cells.of(made, section.reference))
    if section.writes_responses:
        found |= responses.measure(Responses.of(made, section.rows, section.reference))
    return found


def majority_labels(train: RealCells, count: int) -> list[str]:
    """Return the commonest type of the labelled cells ``count`` times; of equally common ones the first by name."""
    counts = Counter(_labelled(train)[1])
    return [min(counts, key=lambda label: (-counts[label], label))] * count


def logistic_labels(train: RealCells, cells: Sequence[Sequence[str]], genes: Sequence[str]) -> list[str]:
    """Return the type that a logistic regression on ranks (L2, C = 1, not tuned) gives each of ``cells``.

    Features are those of :func:`~cellduality_plugin.evaluation.embedding.cell_matrix`: no more than a prompt shows.
    """
    from sklearn.linear_model import LogisticRegression

    known, types = _labelled(train)
    if len(set(types)) < 2:
        return majority_labels(train, len(cells))
    top = max(len(cell) for cell in known)
    model = LogisticRegression(C=1.0, max_iter=2000).fit(cell_matrix(known, genes, top), types)
    return [str(label) for label in model.predict(cell_matrix(cells, genes, top))]


def transferred_labels(train: RealCells, cells: Sequence[Cell], space: Space, k: int) -> list[str]:
    """Return the type that most of the ``k`` nearest labelled training cells have, for each of ``cells``.

    Distances are Euclidean in ``space``, votes as in :func:`~cellduality_plugin.evaluation.distances.nearest_labels`.
    Where there are fewer cells all vote.
    """
    known, types = _labelled(train)
    if not cells:
        return []
    return nearest_labels(cdist(space(cells), space(known)), types, min(k, len(known)))


def cell_baselines(
    train: RealCells, rows: Rows, genes: Sequence[str], samples: int, seed: int
) -> dict[str, list[Prediction]]:
    """Return the answers of two baselines that only know the labelled training cells of the type that a row asks for.

    "training cells" are such cells themselves, drawn with replacement: what memory alone would score. Those of "class
    mean" are drawn gene by gene from their mean profile: it knows which genes a type has, and not which go together;
    ``inputs["length"]`` of a row says how many, by default as many as the longest training cell has. A type, or state,
    without a cell has no answer. What a row gets does not depend on the other rows.
    """
    top, states = max(map(len, train.genes)), train.states or train.types
    cells_of = train.grouped(states, labelled=True)
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


def _answer(task: str, row: str, sample: int, example: Example, cell: Cell, *, drawn: bool = False) -> Prediction:
    read: dict[str, Any] = {"answer": cell or None, "failure": "" if cell else "no_training_cell"}
    counts: dict[str, Any] = {"listed": len(cell), "validity": float(bool(cell))}
    return Prediction(row, task, sample, example.unknown, example.gold, "", drawn=drawn, **read, **counts)


def response_baselines(rows: Rows, reference: Reference) -> dict[str, list[Prediction]]:
    """Return the answers of two baselines: the control cell itself, and it moved by the other types' mean shift."""
    kinds = reference.held_out.type_of
    known, space = reference.train.by_state(labelled=True), reference.embedding
    learned: dict[tuple[str, str], Vector | None] = {}
    made: dict[str, list[Prediction]] = {NO_CHANGE: [], MEAN_SHIFT: []}
    for (task, row), example in rows.items():
        control, key = many(example.inputs, "control"), (kinds[row], str(example.unknown))
        if key not in learned:
            learned[key] = mean_shift(known, key[1], space.genes, space.top, leave_out=key[0])
        shift = learned[key]
        moved = control if shift is None else moved_cell(control, shift, space.genes, space.top)
        made[NO_CHANGE].append(_answer(task, row, 0, example, control))
        made[MEAN_SHIFT].append(_answer(task, row, 0, example, moved))
    return made


def mean_profile(cells: Sequence[Sequence[str]], genes: Sequence[str], top: int) -> Vector:
    """Return the mean weight of every gene over ``cells``, each in [0, 1]: one value a gene."""
    return np.asarray(cell_matrix(cells, genes, top).mean(axis=0)).ravel()


def mean_shift(
    cells: Mapping[tuple[str, str], Sequence[Cell]], state: str, genes: Sequence[str], top: int, *, leave_out: str = ""
) -> Vector | None:
    """Return the mean over cell types of the shift to ``state`` from the control; None if no type has both.

    ``cells`` are by (cell type, state); nothing is learned from the type ``leave_out``.
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
    known = [
        (genes, kind) for genes, kind, shown in zip(train.genes, train.types, train.labelled, strict=True) if shown
    ]
    if not known:
        hint = "prepare with labelled cells"
        raise CellDualityError("no labelled training cell", code="no-labels", where="cells.jsonl", hint=hint)
    return [genes for genes, _ in known], [kind for _, kind in known]
