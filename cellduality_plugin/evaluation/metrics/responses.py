"""Metrics of perturbation responses: how far the predicted shift of genes is the real one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from scipy.sparse import csr_matrix

from cellduality_plugin.evaluation.distances import Vector, resampled
from cellduality_plugin.evaluation.embedding import cell_matrix, profile_name
from cellduality_plugin.evaluation.metrics.given import LEAST_CELLS_OF_A_TYPE, Places, RealCells, Reference
from cellduality_plugin.evaluation.metrics.registry import Measurement, Metric, group, metric
from cellduality_plugin.evaluation.metrics.statistics import CENTRED, centred_interval
from cellduality_plugin.evaluation.predictions import Prediction, Rows
from cellduality_plugin.perturbations import CONTROL
from cellduality_plugin.tasks.base import many

Compared: TypeAlias = Sequence[Sequence[tuple[Vector, Vector]]]
"""Of each (type, perturbation) the real and the predicted shift of some genes, then those of every resample."""

STRONGEST = 20  # how many of the genes that really move most a shift is judged by
MOVED = f"mean over cell types, {STRONGEST} genes of the largest real shift"
TESTED = (
    f"mean over types with at least {LEAST_CELLS_OF_A_TYPE} real cells in either state, {STRONGEST} genes of the "
    "largest Welch t, real perturbed against real control cells"
)


@dataclass(frozen=True)
class Response:
    """Perturbed and control cells of one type, as weights: cells x genes each."""

    perturbed: csr_matrix
    control: csr_matrix
    paired: bool = False  # each perturbed cell was asked from the control cell beside it: both are resampled together

    @property
    def shift(self) -> Vector:
        """The mean of the perturbed cells minus that of the control cells, one value a gene."""
        return np.asarray(self.perturbed.mean(axis=0) - self.control.mean(axis=0)).ravel()

    def shifts(self, genes: Places, rng: np.random.Generator) -> list[Vector]:
        """Return the shift of ``genes``, then that in every bootstrap sample of the cells."""
        ours = resampled(self.perturbed.shape[0], rng)
        theirs = ours if self.paired else resampled(self.control.shape[0], rng)
        perturbed, control = self.perturbed[:, genes].toarray(), self.control[:, genes].toarray()
        return [self.shift[genes], *(ours @ perturbed / len(perturbed) - theirs @ control / len(control))]


@dataclass(frozen=True)
class Responses:
    """Predicted and real responses by (cell type, perturbation), and what a reader must know of them besides."""

    reference: Reference
    predicted: Mapping[tuple[str, str], Response]
    real: Mapping[tuple[str, str], Response]
    note: str = ""

    @classmethod
    def of(cls, predictions: Sequence[Prediction], rows: Rows, reference: Reference) -> Responses:
        """Return the readable responses of ``predictions``, each from the control cell that its row shows."""
        found: dict[tuple[str, str], list[tuple[tuple[str, ...], tuple[str, ...]]]] = {}
        kinds, space = reference.held_out.type_of, reference.embedding
        for p in predictions:
            if p.answer and p.id in kinds and str(p.unknown) != CONTROL:
                pair = tuple(p.answer), many(rows[p.task, p.id].inputs, "control")
                found.setdefault((kinds[p.id], str(p.unknown)), []).append(pair)
        predicted = {}
        for key, pairs in found.items():  # sorted: their order changes no last digit
            ours, theirs = (cell_matrix(cells, space.genes, space.top) for cells in zip(*sorted(pairs), strict=True))
            predicted[key] = Response(ours, theirs, paired=True)
        return cls(reference, predicted, _real(reference.held_out, reference))

    @classmethod
    def of_real(cls, reference: Reference) -> Responses:
        """Return those of other real cells of the same types; of one half against the other where there are none."""
        real = partial(_real, reference=reference)
        if reference.others is not None:
            return cls(reference, real(reference.others), real(reference.held_out))
        rng, one, other = np.random.default_rng(reference.seed), dict[tuple[str, str], Response](), {}
        for key, each in real(reference.held_out, least=2).items():
            orders = [(side, rng.permutation(side.shape[0])) for side in (each.perturbed, each.control)]
            one[key] = Response(*(side[order[: len(order) // 2]] for side, order in orders))
            other[key] = Response(*(side[order[len(order) // 2 :]] for side, order in orders))
        note = "one half of the held-out cells against the other: fewer cells, hence more noise"
        return cls(reference, one, other, note)

    def compared(self, genes: Mapping[tuple[str, str], Places]) -> Compared:
        """Return the real and the predicted shift of the ``genes`` chosen for each (cell type, perturbation)."""
        found = []
        for place, (key, chosen) in enumerate(genes.items()):
            rngs = [np.random.default_rng([self.reference.seed, place, side]) for side in (0, 1)]
            real, predicted = self.real[key].shifts(chosen, rngs[0]), self.predicted[key].shifts(chosen, rngs[1])
            found.append([*zip(real, predicted, strict=True)])
        return found


def measure(responses: Responses) -> dict[str, Measurement]:
    """Return the mean of every metric over (cell type, perturbation), of both choices of genes, with its interval."""
    delta, shift, found = {}, {}, {}
    for key in sorted(responses.real.keys() & responses.predicted.keys()):
        real = responses.real[key]
        shift[key] = strongest(real.shift)
        if min(real.perturbed.shape[0], real.control.shape[0]) >= LEAST_CELLS_OF_A_TYPE:
            delta[key] = strongest(welch_t(real.perturbed.toarray(), real.control.toarray()))
    for name, genes, over in (("delta", delta, TESTED), ("shift", shift, MOVED)):
        compared = responses.compared(genes)
        for each in group("responses"):
            found[f"{name}_{each.key}"] = each.measurement(_mean(each, responses, compared, over))
    return found


def _mean(each: Metric, responses: Responses, compared: Compared, over: str) -> Measurement:
    value, interval, found = None, None, list[list[float]]()
    for shifts in compared:
        first, *others = (each.of(real, predicted) for real, predicted in shifts)
        if first is not None:
            found.append([first, *(first if value is None else value for value in others)])
    if found:
        value, *resamples = np.mean(found, axis=0).tolist()
        interval = centred_interval(value, np.asarray(resamples), *each.bounds)
        note = [responses.note, CENTRED]
    else:
        missing = f"nothing to take the {over.partition(',')[0]}"
        note = ["a shift of nothing points nowhere" if compared else missing, responses.note]
    space, estimator = profile_name(responses.reference.embedding.top), f"{each.estimator}, {over}"
    how: dict[str, Any] = {"n": len(found), "interval": interval, "space": space, "estimator": estimator}
    return Measurement(value, seed=responses.reference.seed, note="; ".join(filter(None, note)), **how)


def strongest(shift: Vector, count: int = STRONGEST) -> Places:
    """Return the places of the ``count`` genes that ``shift`` moves most, either way; equals in the order of genes."""
    return np.argsort(-np.abs(shift), kind="stable")[:count]


def welch_t(perturbed: Vector, control: Vector) -> Vector:
    """Return Welch's t of every gene (column) of two cells a side or more, as scanpy's ``rank_genes_groups``.

    It is 0 where nothing differs, infinite without variance.
    """
    apart = perturbed.mean(axis=0) - control.mean(axis=0)
    error = np.sqrt(perturbed.var(axis=0, ddof=1) / len(perturbed) + control.var(axis=0, ddof=1) / len(control))
    limit = np.where(apart == 0, 0.0, np.copysign(np.inf, apart))
    return np.asarray(np.divide(apart, error, out=limit, where=error > 0))


@metric(
    "correlation", "shift correlation", "higher", group="responses", bounds=(-1.0, 1.0), estimator="Pearson",
    titles={"delta_correlation": "Pearson Δ, DE genes"},
)  # fmt: skip
def correlation(real: Vector, predicted: Vector) -> float | None:
    """Return Pearson's correlation of two shifts, in [-1, 1]; None if either is the same for all genes.

    Of all genes this is cell-eval's ``pearson_delta``, and :func:`squared_error` its ``mse_delta``.
    """
    one, other = real - real.mean(), predicted - predicted.mean()
    scale = float(np.sqrt((one @ one) * (other @ other)))
    return float(np.clip(one @ other / scale, -1, 1)) if scale > 0 else None


@metric(
    "error", "shift error", "lower", group="responses", bounds=(0.0, 4.0), headline="shift_error",
    estimator="mean squared error", titles={"delta_error": "MSE Δ, DE genes"},
)  # fmt: skip
def squared_error(real: Vector, predicted: Vector) -> float:
    """Return the mean squared error of a shift, in [0, 4]."""
    return float(np.mean((real - predicted) ** 2))


def _real(cells: RealCells, reference: Reference, least: int = 1) -> dict[tuple[str, str], Response]:
    known, space = cells.by_state(), reference.embedding
    return {
        (kind, state): Response(*(cell_matrix(own, space.genes, space.top) for own in (found, known[kind, CONTROL])))
        for (kind, state), found in known.items()
        if state != CONTROL and min(len(found), len(known.get((kind, CONTROL), ()))) >= least
    }
