"""Perturbation responses: how far the predicted shift is the real one, and the baselines to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from cellduality_plugin.evaluation import shifts
from cellduality_plugin.evaluation.distances import resampled
from cellduality_plugin.evaluation.embedding import cell_matrix, profile_name
from cellduality_plugin.evaluation.metrics import Better, Metric, centred_interval
from cellduality_plugin.evaluation.populations import LEAST_CELLS_OF_A_TYPE, RESAMPLES
from cellduality_plugin.evaluation.predictions import Prediction, Rows
from cellduality_plugin.evaluation.real_cells import RealCells
from cellduality_plugin.evaluation.yardstick import Yardstick
from cellduality_plugin.perturbations import CONTROL
from cellduality_plugin.tasks.base import many

STRONGEST = 20
"""How many of the genes that really move most a shift is judged by."""
NO_CHANGE, MEAN_SHIFT = "no change", "mean shift"


@dataclass(frozen=True)
class Response:
    """Perturbed and control cells of one type, as weights: cells x genes each.

    Parameters
    ----------
    perturbed, control
        The cells.
    paired
        Whether each perturbed cell was asked from the control cell beside it: then both are resampled together.
    """

    perturbed: csr_matrix
    control: csr_matrix
    paired: bool = False

    @property
    def least(self) -> int:
        """The number of cells of the smaller side."""
        return int(min(self.perturbed.shape[0], self.control.shape[0]))

    @property
    def shift(self) -> shifts.Vector:
        """The mean of the perturbed cells minus that of the control cells, one value a gene."""
        return np.asarray(self.perturbed.mean(axis=0) - self.control.mean(axis=0)).ravel()

    def differential(self, count: int) -> shifts.Places:
        """Return the places of the ``count`` genes that a test tells the two sides apart by."""
        return shifts.differential(self.perturbed.toarray(), self.control.toarray(), count)

    def resampled_shifts(self, genes: shifts.Places, rng: np.random.Generator) -> shifts.Vector:
        """Return the shift of ``genes`` in every bootstrap sample of the cells: resamples x genes."""
        ours = resampled(self.perturbed.shape[0], rng, RESAMPLES)
        theirs = ours if self.paired else resampled(self.control.shape[0], rng, RESAMPLES)
        perturbed, control = self.perturbed[:, genes].toarray(), self.control[:, genes].toarray()
        return np.asarray(ours @ perturbed / len(perturbed) - theirs @ control / len(control))

    def halves(self, rng: np.random.Generator) -> tuple[Response, Response]:
        """Return two responses, each of half the cells of either side."""
        orders = [(side, rng.permutation(side.shape[0])) for side in (self.perturbed, self.control)]
        one = Response(*(side[order[: len(order) // 2]] for side, order in orders))
        other = Response(*(side[order[len(order) // 2 :]] for side, order in orders))
        return one, other


def response_metrics(predictions: Sequence[Prediction], rows: Rows, yardstick: Yardstick) -> dict[str, Metric]:
    """Return correlation and error of the predicted shift, each the mean over (cell type, perturbation).

    A shift is the mean profile of the answers minus that of the control cells they were asked from; the real one is
    that of the held-out cells of the type. Answers that cannot be read are left out: validity counts them.
    """
    found: dict[tuple[str, str], list[tuple[tuple[str, ...], tuple[str, ...]]]] = {}
    kinds = dict(zip(yardstick.held_out.ids, yardstick.held_out.types, strict=True))
    for p in predictions:
        if p.answer and p.id in kinds and str(p.unknown) != CONTROL:
            pair = tuple(p.answer), many(rows[p.task, p.id].inputs, "control")
            found.setdefault((kinds[p.id], str(p.unknown)), []).append(pair)
    # Sorted: sums, hence last digits and intervals, do not depend on the order of the predictions.
    predicted = {}
    for key, pairs in found.items():
        answers, controls = zip(*sorted(pairs), strict=True)
        predicted[key] = Response(_profiles(answers, yardstick), _profiles(controls, yardstick), paired=True)
    return _compared(predicted, _real(yardstick.held_out, yardstick), yardstick)


def real_response_metrics(yardstick: Yardstick) -> dict[str, Metric]:
    """Return what the shift of other real cells of the same types scores: the ceiling.

    Where no others are of these types, one half of the held-out cells is held against the other half.
    """
    if yardstick.others is not None:
        real = _real(yardstick.held_out, yardstick)
        return _compared(_real(yardstick.others, yardstick), real, yardstick)
    rng = np.random.default_rng(yardstick.seed)
    whole = _real(yardstick.held_out, yardstick, least=2)
    split = {key: response.halves(rng) for key, response in whole.items()}
    one, other = ({key: parts[side] for key, parts in split.items()} for side in (0, 1))
    note = "one half of the held-out cells against the other: fewer cells, hence more noise"
    return _compared(one, other, yardstick, note)


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


def _profiles(cells: Sequence[Sequence[str]], yardstick: Yardstick) -> csr_matrix:
    return cell_matrix(cells, yardstick.embedding.genes, yardstick.embedding.top)


def _real(cells: RealCells, yardstick: Yardstick, least: int = 1) -> dict[tuple[str, str], Response]:
    known = cells.by_state()
    return {
        (kind, state): Response(_profiles(found, yardstick), _profiles(known[kind, CONTROL], yardstick))
        for (kind, state), found in known.items()
        if state != CONTROL and min(len(found), len(known.get((kind, CONTROL), ()))) >= least
    }


def _compared(
    predicted: Mapping[tuple[str, str], Response],
    real: Mapping[tuple[str, str], Response],
    yardstick: Yardstick,
    note: str = "",
) -> dict[str, Metric]:
    """Return both measures over both choices of genes: those that move most, and those that a test finds."""
    both = sorted(real.keys() & predicted.keys())
    tested = [key for key in both if real[key].least >= LEAST_CELLS_OF_A_TYPE]
    moved = {key: shifts.strongest(real[key].shift, STRONGEST) for key in both}
    found = {key: real[key].differential(STRONGEST) for key in tested}
    few = f"types with at least {LEAST_CELLS_OF_A_TYPE} real cells in either state"
    test = f"{STRONGEST} genes of the largest Welch t, real perturbed against real control cells"
    return {
        f"{name}_{measure}": metric
        for name, genes, over in (
            ("shift", moved, f"mean over cell types, {STRONGEST} genes of the largest real shift"),
            ("delta", found, f"mean over {few}, {test}"),
        )
        for measure, metric in _measured(predicted, real, genes, over, yardstick, note).items()
    }


def _measured(
    predicted: Mapping[tuple[str, str], Response],
    real: Mapping[tuple[str, str], Response],
    genes: Mapping[tuple[str, str], shifts.Places],
    over: str,
    yardstick: Yardstick,
    note: str,
) -> dict[str, Metric]:
    correlations, errors = [], []
    for place, (key, chosen) in enumerate(genes.items()):
        drawn = [
            response.resampled_shifts(chosen, np.random.default_rng([yardstick.seed, place, side]))
            for side, response in enumerate((real[key], predicted[key]))
        ]
        pairs = [(real[key].shift[chosen], predicted[key].shift[chosen]), *zip(*drawn, strict=True)]
        everything = np.arange(len(chosen))
        errors.append([shifts.shift_error(one, other, len(chosen), everything) for one, other in pairs])
        told = [shifts.shift_correlation(one, other, len(chosen), everything) for one, other in pairs]
        if told[0] is not None:
            correlations.append([told[0] if value is None else value for value in told])
    space = profile_name(yardstick.embedding.top)
    silent = "a shift of nothing points nowhere" if genes and not correlations else ""

    def metric(
        values: list[list[float]], better: Better, best: float, bounds: tuple[float, float], estimator: str, why: str
    ) -> Metric:
        seed = yardstick.seed
        if not values:
            why = why or f"nothing to take the {over.partition(',')[0]}"
            told = "; ".join(filter(None, [why, note]))
            return Metric(None, better, best, 0, None, space, estimator, "", seed, told, bounds)
        value, *resamples = np.mean(values, axis=0).tolist()
        interval = centred_interval(value, np.asarray(resamples), *bounds)
        told = "; ".join(filter(None, [note, f"interval of {RESAMPLES} resamples within types, centred"]))
        return Metric(value, better, best, len(values), interval, space, estimator, "", seed, told, bounds)

    return {
        "correlation": metric(correlations, "higher", 1.0, (-1.0, 1.0), f"Pearson, {over}", silent),
        "error": metric(errors, "lower", 0.0, (0.0, 4.0), f"mean squared error, {over}", ""),
    }
