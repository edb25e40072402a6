"""Perturbation responses: how far the predicted shift is the real one, and the baselines to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cellduality_plugin.evaluation import shifts
from cellduality_plugin.evaluation.measures import Yardstick
from cellduality_plugin.evaluation.metrics import Metric
from cellduality_plugin.evaluation.predictions import Prediction, Rows
from cellduality_plugin.evaluation.real_cells import RealCells
from cellduality_plugin.perturbations import CONTROL
from cellduality_plugin.tasks.base import many

STRONGEST = 20
"""How many of the genes that really move most a shift is judged by."""
NO_CHANGE, MEAN_SHIFT = "no change", "mean shift"


def response_metrics(predictions: Sequence[Prediction], rows: Rows, yardstick: Yardstick) -> dict[str, Metric]:
    """Return correlation and error of the predicted shift, each the mean over (cell type, perturbation).

    A shift is the mean profile of the answers minus that of the control cells they were asked from; the real one is
    that of the held-out cells of the type. Answers that cannot be read are left out: validity counts them.
    """
    found: dict[tuple[str, str], tuple[list[tuple[str, ...]], list[tuple[str, ...]]]] = {}
    kinds = dict(zip(yardstick.held_out.ids, yardstick.held_out.types, strict=True))
    for p in predictions:
        if p.answer and p.id in kinds and str(p.unknown) != CONTROL:
            answers, controls = found.setdefault((kinds[p.id], str(p.unknown)), ([], []))
            answers.append(tuple(p.answer))
            controls.append(many(rows[p.task, p.id].inputs, "control"))
    predicted = {
        key: _profile(answers, yardstick) - _profile(controls, yardstick) for key, (answers, controls) in found.items()
    }
    return _compared(predicted, yardstick)


def real_response_metrics(yardstick: Yardstick) -> dict[str, Metric]:
    """Return what the shift of other real cells of the same types scores: the ceiling. Empty if there are none."""
    return _compared(_real_shifts(yardstick.others, yardstick), yardstick) if yardstick.others is not None else {}


def response_baselines(rows: Rows, yardstick: Yardstick) -> dict[str, list[Prediction]]:
    """Return the answers of the two baselines: the control cell itself, and it moved by the other types' mean shift.

    The shift is learned from the labelled training cells, which are what supervised fine-tuning saw.
    """
    kinds = dict(zip(yardstick.held_out.ids, yardstick.held_out.types, strict=True))
    known, space = yardstick.train.by_state(labelled=True), yardstick.embedding
    learned: dict[tuple[str, str], shifts.Vector | None] = {}
    made: dict[str, list[Prediction]] = {NO_CHANGE: [], MEAN_SHIFT: []}
    for (task, row), example in rows.items():
        control, state = many(example.inputs, "control"), str(example.unknown)
        key = (kinds[row], state)
        if key not in learned:
            learned[key] = shifts.mean_shift(known, state, CONTROL, space.genes, space.top, leave_out=kinds[row])
        shift = learned[key]
        moved = control if shift is None else shifts.moved_cell(control, shift, space.genes, space.top)
        for name, cell in ((NO_CHANGE, control), (MEAN_SHIFT, moved)):
            answer = Prediction(row, task, 0, example.unknown, example.gold, "", cell, "", len(cell), validity=1.0)
            made[name].append(answer)
    return made


def _profile(cells: Sequence[Sequence[str]], yardstick: Yardstick) -> shifts.Vector:
    return shifts.mean_profile(cells, yardstick.embedding.genes, yardstick.embedding.top)


def _real_shifts(cells: RealCells, yardstick: Yardstick) -> dict[tuple[str, str], shifts.Vector]:
    known = cells.by_state()
    return {
        (kind, state): _profile(found, yardstick) - _profile(known[kind, CONTROL], yardstick)
        for (kind, state), found in known.items()
        if state != CONTROL and (kind, CONTROL) in known
    }


def _compared(predicted: Mapping[tuple[str, str], shifts.Vector], yardstick: Yardstick) -> dict[str, Metric]:
    real = _real_shifts(yardstick.held_out, yardstick)
    both = sorted(real.keys() & predicted.keys())
    correlations = [shifts.shift_correlation(real[key], predicted[key], STRONGEST) for key in both]
    told = [value for value in correlations if value is not None]
    errors = [shifts.shift_error(real[key], predicted[key], STRONGEST) for key in both]
    space = yardstick.embedding.name.partition(" of ")[2].partition(", ")[0]
    estimator = f"mean over cell types, {STRONGEST} genes of the largest real shift"
    note = "" if told else "a shift of nothing points nowhere"
    correlation = float(np.mean(told)) if told else None
    error = float(np.mean(errors)) if errors else None
    pearson = f"Pearson, {estimator}"
    return {
        "shift_correlation": Metric(correlation, "higher", 1.0, len(told), None, space, pearson, note=note),
        "shift_error": Metric(error, "lower", 0.0, len(errors), None, space, f"mean squared error, {estimator}"),
    }
