"""What metrics of generated cells are given: the cells of one section, or real ones in their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.evaluation.distances import Counts, Matrix, in_order, resampled
from cellduality_plugin.evaluation.metrics.statistics import RESAMPLES
from cellduality_plugin.evaluation.predictions import Prediction
from cellduality_plugin.evaluation.real_cells import Reference, matched

Places: TypeAlias = NDArray[np.int64]
Sample: TypeAlias = tuple[Matrix, Sequence[str]]
"""Points, and the name of each."""
Pair: TypeAlias = tuple[Matrix, Matrix, Counts]
"""The generated and the real cells of one name (or of all), and how often each is in every bootstrap sample."""

LEAST_CELLS_OF_A_TYPE = 10  # on either side: types with fewer are left out of distances within types
_REAL_DRAWS = 4


@dataclass(frozen=True)
class Cells:
    """What a metric of cells is given: the cells that could be read, and real ones."""

    reference: Reference  # the real cells and their space, the seed and the number of resamples
    genes: Sequence[tuple[str, ...]]  # of each cell, ranked
    points: Matrix
    names: Sequence[str]  # what each cell was asked to be
    rows: Sequence[str]  # of each cell, then those of answers that could not be read
    draws: Sequence[tuple[Sample, Sample]]  # generated cells and real ones, in the proportions of what was asked for
    against: str  # what the real cells are
    answers: Sequence[Prediction] | None = None  # None of real cells

    def __len__(self) -> int:
        return len(self.genes)

    @classmethod
    def of(cls, predictions: Sequence[Prediction], reference: Reference) -> Cells:
        """Return the cells that ``predictions`` wrote; each was asked to be what the real cell of its row is called."""
        name_of = reference.held_out.name_of
        # In an order of their own, so that not even the last digit or an interval depends on the one they came in.
        made = sorted(predictions, key=lambda p: (p.id, p.sample, p.answer or ()))
        asked = {p.id: name_of.get(p.id, str(p.unknown)) for p in made}
        read, unread = [p for p in made if p.answer], [p for p in made if not p.answer]
        genes, names = [tuple(p.answer or ()) for p in read], [asked[p.id] for p in read]
        points, samples = reference.embedding(genes), np.array([p.sample for p in read])
        real, against = _held_out([*asked.values()], reference)
        draws = [(_sample(points, names, np.flatnonzero(samples == draw)), real) for draw in np.unique(samples)]
        return cls(reference, genes, points, names, [p.id for p in (*read, *unread)], draws, f"against {against}", made)

    @classmethod
    def of_real(cls, asked: Sequence[str], reference: Reference) -> Cells:
        """Return the real cells of the split, whose metrics are the ceiling, or floor, of those of generated ones.

        Distances are those to as many other real cells, of the conditions that rows asked for; where no others are of
        these types, of one half to the other.
        """
        held_out, rng = reference.held_out, np.random.default_rng(reference.seed)
        real, against = _held_out(asked, reference)
        if reference.others is None:
            halves = [_halves(real[1], rng) for _ in range(_REAL_DRAWS)]
            draws = [(_sample(*real, one), _sample(*real, other)) for one, other in halves]
            against = f"one half of {against} against the other: fewer cells, hence more noise"
        else:
            names = reference.others.names
            places = [matched(names, real[1], rng) for _ in range(_REAL_DRAWS)]
            draws = [(_sample(reference.other_points, names, each), real) for each in places]
            against = f"other real cells against {against}"
        return cls(reference, held_out.genes, reference.points, held_out.names, held_out.ids, draws, against)

    @cached_property
    def groups(self) -> list[Places]:
        """The places of the cells of each name that has at least two, in the order of names."""
        names = np.asarray(self.names, dtype=str)
        return [own for name in np.unique(names) if len(own := np.flatnonzero(names == name)) > 1]

    @cached_property
    def group_resamples(self) -> tuple[list[Places], list[Places]]:
        """Two independent bootstraps: how often each cell of each group is in every sample."""
        rng = np.random.default_rng(self.reference.seed)
        one, other = ([resampled(len(own), rng, RESAMPLES) for own in self.groups] for _ in range(2))
        return one, other

    @cached_property
    def pairs(self) -> list[list[Pair]]:
        """Of each draw the cells type by type, in the proportions of the real ones, with their resamples.

        Types without generated cells are left out. Real cells and their resamples are the same in every draw.
        """
        return [_pairs(*draw, self.reference.seed, place) for place, draw in enumerate(self.draws)]

    @cached_property
    def all_types(self) -> list[list[Pair]]:
        """Of each draw the cells of all types as one pair; resampled within types."""
        found = []
        for pairs in filter(None, self.pairs):
            ours, theirs, counts = zip(*pairs, strict=True)
            one, other = (np.concatenate(side, axis=1) for side in zip(*counts, strict=True))
            found.append([(np.concatenate(ours), np.concatenate(theirs), (one, other))])
        return found


def _held_out(asked: Sequence[str], reference: Reference) -> tuple[Sample, str]:
    """Return held-out cells in the proportions of the names ``asked`` for, and what they are called."""
    chosen = matched(reference.held_out.names, asked, np.random.default_rng(reference.seed))
    return _sample(reference.points, reference.held_out.names, chosen), f"{len(chosen)} real held-out cells"


def _sample(points: Matrix, names: Sequence[str], places: Places) -> Sample:
    return points[places], np.asarray(names, dtype=str)[places].tolist()


def _halves(names: Sequence[str], rng: np.random.Generator) -> tuple[Places, Places]:
    """Return the places of two halves, with equally many cells of each name in either."""
    own = [rng.permutation(np.flatnonzero(np.asarray(names) == name)) for name in sorted(set(names))]
    one = [places[: len(places) // 2] for places in own]
    other = [places[len(places) // 2 : 2 * (len(places) // 2)] for places in own]
    return np.concatenate(one), np.concatenate(other)


def _pairs(ours: Sample, theirs: Sample, seed: int, draw: int) -> list[Pair]:
    names = np.asarray(theirs[1], dtype=str)
    kept = matched(ours[1], names.tolist())
    points, labels = ours[0][kept], np.asarray(ours[1], dtype=str)[kept]
    found = []
    for place, name in enumerate(np.unique(names)):
        one, other = in_order(points[labels == name]), in_order(theirs[0][names == name])
        if len(one):
            ours_drawn = resampled(len(one), np.random.default_rng([seed, draw, place]), RESAMPLES)
            theirs_drawn = resampled(len(other), np.random.default_rng([seed, place]), RESAMPLES)
            found.append((one, other, (ours_drawn, theirs_drawn)))
    return found
