"""What every metric of generated cells promises, from one table of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellduality_plugin.evaluation import distances, metrics, shifts
from cellduality_plugin.evaluation.embedding import cell_matrix
from cellduality_plugin.evaluation.frechet import frechet_distance
from cellduality_plugin.evaluation.transport import gromov_wasserstein, wasserstein
from cellduality_plugin.parsing import Answer

GENES = tuple(f"G{number}" for number in range(14))
TOP = 8
seeds = st.integers(0, 2**32 - 1)


@dataclass(frozen=True)
class Cells:
    """Cells as a metric may want them: ranked genes, points, labels, and parsed answers."""

    genes: tuple[tuple[str, ...], ...]
    points: np.ndarray
    labels: np.ndarray

    @property
    def matrix(self) -> np.ndarray:
        return cell_matrix(self.genes, GENES, TOP).toarray()

    @property
    def answers(self) -> list[Answer]:
        return [Answer(cell, listed=len(cell)) for cell in self.genes]

    @property
    def shift(self) -> np.ndarray:
        order = np.lexsort(self.matrix.T)
        return self.matrix[order].mean(axis=0) - 0.3

    def reordered(self, seed: int) -> Cells:
        order = np.random.default_rng(seed).permutation(len(self.genes))
        return Cells(tuple(self.genes[place] for place in order), self.points[order], self.labels[order])


def drawn(seed: int, n: int = 24) -> Cells:
    """Return ``n`` cells; as in a data set without duplicates, no two of them are alike."""
    rng = np.random.default_rng(seed)
    genes: dict[tuple[str, ...], None] = {}
    while len(genes) < n:
        genes[tuple(rng.permutation(GENES)[: rng.integers(3, TOP + 1)].tolist())] = None
    return Cells(tuple(genes), rng.normal(size=(n, 4)), rng.permutation(np.repeat(["A", "B", "C"], n // 3)))


@dataclass(frozen=True)
class Row:
    """A metric of generated cells among real ones; ``best`` None means: that of the real cells themselves."""

    of: Callable[[Cells, Cells], float | None]
    low: float
    high: float
    best: float | None
    higher: bool = False


def knn(k: int, generated: Cells, real: Cells) -> float:
    return distances.knn_agreement(real.points, real.labels, generated.points, generated.labels, k)


def found_by_test(real: Cells) -> np.ndarray:
    return shifts.differential(real.matrix[real.labels != "A"], real.matrix[real.labels == "A"], 6)


TABLE = {
    "accuracy": Row(lambda ours, real: metrics.accuracy(np.sort(real.labels), np.sort(ours.labels)), 0, 1, 1, True),
    "macro_f1": Row(lambda ours, real: metrics.macro_f1(np.sort(real.labels), np.sort(ours.labels)), 0, 1, 1, True),
    "validity": Row(lambda ours, real: metrics.validity_rate(ours.answers), 0, 1, 1, True),
    "duplicates": Row(lambda ours, real: metrics.duplicate_rate(ours.answers), 0, 1, 0),
    "distinct": Row(lambda ours, real: metrics.distinct_rate(ours.genes), 0, 1, 1, True),
    "knn_agreement_1": Row(partial(knn, 1), 0, 1, 1, True),
    "mmd": Row(lambda ours, real: distances.mmd(ours.points, real.points, 2.0), 0, 2, 0),
    "wasserstein": Row(lambda ours, real: wasserstein(ours.points, real.points), 0, np.inf, 0),
    "gromov_wasserstein": Row(lambda ours, real: gromov_wasserstein(ours.points, real.points), 0, np.inf, 0),
    "scfid": Row(lambda ours, real: frechet_distance(ours.points, real.points), 0, np.inf, 0),
    "scfid_shrunk": Row(lambda ours, real: frechet_distance(ours.points, real.points, shrinkage=True), 0, np.inf, 0),
    "spread": Row(lambda ours, real: distances.spread(ours.points, ours.labels), 0, np.inf, None),
    "diversity": Row(lambda ours, real: distances.diversity(ours.genes, ours.labels), 0, 1, None),
    "shift_correlation": Row(lambda ours, real: shifts.shift_correlation(real.shift, ours.shift, 5), -1, 1, 1, True),
    "shift_error": Row(lambda ours, real: shifts.shift_error(real.shift, ours.shift, 5), 0, 4, 0),
    "delta_correlation": Row(
        lambda ours, real: shifts.shift_correlation(real.shift, ours.shift, 6, found_by_test(real)), -1, 1, 1, True
    ),
    "delta_error": Row(lambda ours, real: shifts.shift_error(real.shift, ours.shift, 6, found_by_test(real)), 0, 4, 0),
}


@pytest.mark.parametrize("name", TABLE)
@given(seeds)
@settings(max_examples=15)
def test_real_against_itself_is_best_and_others_are_in_range_and_no_better(name: str, seed: int) -> None:
    row, real, other = TABLE[name], drawn(seed), drawn(seed + 1)
    itself, apart = row.of(real, real), row.of(other, real)
    assert row.low <= apart <= row.high
    if row.best is not None:
        assert itself == pytest.approx(row.best, abs=1e-9)
        assert apart <= row.best if row.higher else apart >= row.best


@pytest.mark.parametrize("name", TABLE)
@given(seeds)
@settings(max_examples=15)
def test_the_order_of_cells_changes_no_bit(name: str, seed: int) -> None:
    row, real, other = TABLE[name], drawn(seed), drawn(seed + 1)
    found = row.of(other, real)
    assert not math.isnan(found)
    assert row.of(other.reordered(seed), real.reordered(seed + 2)) == found


@given(seeds, st.sampled_from([3, 5, 10]))
@settings(max_examples=30)
def test_knn_never_sees_its_own_query(seed: int, k: int) -> None:
    """Whatever a real cell is called, its neighbours call it the same: its own label has no say."""
    real = drawn(seed)
    apart = np.linalg.norm(real.points[:, None] - real.points, axis=2)
    np.fill_diagonal(apart, np.inf)
    named = distances.nearest_labels(apart, real.labels, k)
    for place in (0, 7):
        other = real.labels.copy()
        other[place] = "X"
        assert distances.nearest_labels(apart, other, k)[place] == named[place]
    assert distances.knn_ceiling(real.points, real.labels, k) == np.mean(named == real.labels)


@pytest.mark.parametrize("name", ["spread", "diversity", "distinct"])
def test_mode_collapse_shows(name: str) -> None:
    row, real = TABLE[name], drawn(0)
    collapsed = Cells((real.genes[0],) * 24, np.tile(real.points[:1], (24, 1)), real.labels)
    assert row.of(collapsed, real) <= 0.05 < 0.5 < row.of(real, real)
