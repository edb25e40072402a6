"""Metrics of written cells: by hand, their floor, and their intervals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cellduality_plugin.evaluation.distances import frechet, gromov_wasserstein, mmd, wasserstein
from cellduality_plugin.evaluation.metrics.cells import measure
from cellduality_plugin.evaluation.metrics.given import Cells, Reference
from cellduality_plugin.evaluation.predictions import Prediction

DISTANCES = ("mmd", "mmd_within_types", "wasserstein", "gromov_wasserstein", "scfid", "scfid_shrunk")
GENERATION, RESPONSE = "conditional_cell_generation", "perturbation_response_generation"


@pytest.fixture
def reference(sections) -> Reference:
    return sections[GENERATION].reference


def written(cell, kind: str, row: object = "1", **fields) -> Prediction:
    fields = {"listed": len(cell or ())} | fields
    return Prediction(str(row), GENERATION, 0, kind, None, "", cell, "" if cell else "no_answer", **fields)


def copies(reference: Reference, **fields) -> list[Prediction]:
    """The real cells themselves."""
    cells = zip(reference.held_out.genes, reference.held_out.types, strict=True)
    return [written(genes, kind, row, **fields) for row, (genes, kind) in enumerate(cells)]


def of(made, reference: Reference):
    return measure(Cells.of(made, reference))


def of_real(reference: Reference):
    return measure(Cells.of_real(reference.held_out.names, reference))


def sample(seed: int, sizes: dict[str, int], dimensions: int = 5, shift: float = 0.0):
    names = np.repeat([*sizes], [*sizes.values()])
    return np.random.default_rng(seed).normal(size=(len(names), dimensions)) + shift, names


def distances_of(draws, reference: Reference):
    """The metrics of points that no cell has."""
    points, names = draws[0][0]
    cells = [(name, str(place)) for place, name in enumerate(names)]
    reference = replace(reference, neighbours=(), points=np.zeros((30, points.shape[1])))
    return measure(Cells(reference, cells, points, names, [], draws, "against them", []))


def test_cells_by_hand(reference) -> None:
    made = copies(reference, listed=10, unknown_words=1, repeated=1)
    found, floor = of(made, reference), of_real(reference)
    for name in DISTANCES:
        assert found[name].value < 1e-9 < 1e-3 < floor[name].value, name
    assert found["validity"].value == pytest.approx(0.9)
    assert found["duplicates"].value == pytest.approx(1 / 9)
    assert found["distinct"].value == found["knn_agreement_5"].value == 1
    names = np.random.default_rng(0).permutation(reference.held_out.types)
    mixed = replace(reference, held_out=replace(reference.held_out, types=tuple(names)), neighbours=(1,))
    assert of(copies(mixed), mixed)["knn_agreement_1"].value == 1 > of_real(mixed)["knn_agreement_1"].value + 0.2
    halved = of(made + [written(None, "B", f"x{place}") for place in range(len(made))], reference)
    assert halved["knn_agreement_5"].value == 0.5
    assert halved["validity"].value == pytest.approx(0.45)
    assert halved["duplicates"].value == pytest.approx(1 / 9)


def test_mode_collapse_shows_in_variety_and_distance_not_in_agreement(reference) -> None:
    typical = dict(zip(reference.held_out.types, reference.held_out.genes, strict=True))
    found = of([replace(p, answer=typical[p.unknown]) for p in copies(reference)], reference)
    real = of_real(reference)
    assert (found["knn_agreement_5"].value, found["spread"].value) == (1, 0)
    assert found["diversity"].value < 1e-12 < real["diversity"].value
    assert found["distinct"].value == pytest.approx(3 / 30)
    assert found["mmd"].value > 3 * real["mmd"].value
    nothing = of([written(None, "B")], reference)
    assert nothing["knn_agreement_5"].value == nothing["validity"].value == 0
    for name in (*DISTANCES, "spread", "diversity", "distinct", "duplicates"):
        assert (nothing[name].value, bool(nothing[name].note)) == (None, True)


def test_distances_take_types_in_the_proportions_asked_for(reference) -> None:
    only_b = [p for p in copies(reference) if p.unknown == "B"]
    assert of(only_b, reference)["mmd"].value == pytest.approx(0, abs=1e-12)
    real, (points, names) = sample(0, {"B": 12}), sample(1, {"B": 12})
    more = np.concatenate([points, points + 9]), np.repeat(["B", "T"], 12)
    one, other = (distances_of([(draw, real)], reference) for draw in ((points, names), more))
    assert {name: one[name].value for name in DISTANCES} == {name: other[name].value for name in DISTANCES}


def test_distances_within_types_are_means_over_types_and_draws(reference) -> None:
    real = sample(0, {"B": 12, "T": 15})
    draws = [sample(seed, {"B": 12, "T": 15}, shift=0.5) for seed in (1, 2)]
    found, kinds = distances_of([(draw, real) for draw in draws], reference), np.array(real[1])
    for name, distance in {
        "wasserstein": wasserstein,
        "gromov_wasserstein": gromov_wasserstein,
        "scfid": frechet,
        "mmd_within_types": lambda one, other: mmd(one, other, bandwidth=reference.bandwidth),
    }.items():
        expected = [distance(points[kinds == kind], real[0][kinds == kind]) for points, _ in draws for kind in "BT"]
        assert found[name].value == pytest.approx(np.mean(expected), abs=1e-12), name
        assert (found[name].n, found[name].best, found[name].better) == (27, 0, "lower")
        assert "mean over 2 of 2 types" in found[name].note


@pytest.mark.parametrize(("cells", "types"), [(20, 0), (21, 1)])
def test_scfid_needs_more_cells_than_dimensions_and_shrinkage_does_not(cells: int, types: int, reference) -> None:
    sizes = {"B": 12, "T": cells}
    found = distances_of([(sample(1, sizes, 20), sample(0, sizes, 20))], reference)
    assert (found["scfid"].value is None) == (types == 0)
    assert found["scfid"].note.startswith(f"mean over {types} of 2 types, those with more than 20 cells")
    assert found["scfid_shrunk"].value > 0


def test_intervals_are_seeded_and_hold_the_value(reference) -> None:
    draws = [(sample(1, {"B": 12, "T": 15}, shift=0.5), sample(0, {"B": 12, "T": 15}))]
    found, again, other = (distances_of(draws, replace(reference, seed=seed)) for seed in (0, 0, 1))
    assert found == again
    for name in DISTANCES:
        low, high = found[name].interval
        assert 0 <= low < found[name].value < high
        count = 40 if name == "gromov_wasserstein" else 100
        assert f"interval of {count} resamples within types, centred" in found[name].note
        assert (other[name].value, other[name].interval != found[name].interval) == (found[name].value, True)


def test_real_cells_are_the_floor_of_other_real_ones_or_of_one_half_against_the_other(sections) -> None:
    for key in (GENERATION, RESPONSE):
        found = of_real(sections[key].reference)
        for name in (*DISTANCES, "spread", "diversity"):
            assert found[name].value is not None, name
            assert "half" not in found[name].note
    reference = sections[f"{RESPONSE}@ood"].reference
    found = of_real(reference)
    assert found["mmd"].n == len(reference.held_out) // 2
    assert "one half of 32 real held-out cells against the other" in found["mmd"].note
    assert found["wasserstein"].value is None  # eight of a type and state are too few
