"""Distances of populations: what they are the mean of, their floor, and their intervals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cellduality_plugin.evaluation import measures
from cellduality_plugin.evaluation.distances import mmd, mmd_resamples, resampled
from cellduality_plugin.evaluation.frechet import frechet_distance
from cellduality_plugin.evaluation.metrics import centred_interval
from cellduality_plugin.evaluation.populations import population_metrics
from cellduality_plugin.evaluation.transport import gromov_wasserstein, wasserstein
from cellduality_plugin.evaluation.yardstick import Yardstick

DISTANCES = ("mmd", "mmd_within_types", "wasserstein", "gromov_wasserstein", "scfid", "scfid_shrunk")
GENERATION = "conditional_cell_generation"


@pytest.fixture
def yardstick(sections) -> Yardstick:
    return sections[GENERATION].yardstick


def sample(seed: int, sizes: dict[str, int], dimensions: int = 5, shift: float = 0.0):
    rng = np.random.default_rng(seed)
    names = [name for name, size in sizes.items() for _ in range(size)]
    return rng.normal(size=(len(names), dimensions)) + shift, names


def test_distances_within_types_are_means_over_types_and_draws(yardstick) -> None:
    real = sample(0, {"B": 12, "T": 15})
    draws = [sample(seed, {"B": 12, "T": 15}, shift=0.5) for seed in (1, 2)]
    found = population_metrics([(draw, real) for draw in draws], yardstick, "against real cells")
    kinds = np.array(real[1])
    for name, distance in {
        "wasserstein": wasserstein,
        "gromov_wasserstein": gromov_wasserstein,
        "scfid": frechet_distance,
        "mmd_within_types": lambda one, other: mmd(one, other, yardstick.bandwidth),
    }.items():
        expected = [distance(points[kinds == kind], real[0][kinds == kind]) for points, _ in draws for kind in "BT"]
        assert found[name].value == pytest.approx(np.mean(expected), abs=1e-12), name
        assert (found[name].n, found[name].best, found[name].better) == (27, 0, "lower")
        assert "mean over 2 of 2 types" in found[name].note


def test_cells_beyond_the_proportions_of_real_ones_are_left_out(yardstick) -> None:
    real = sample(0, {"B": 12})
    points, names = sample(1, {"B": 12})
    more = np.concatenate([points, points + 9]), [*names, *["T"] * 12]
    one, other = (population_metrics([(draw, real)], yardstick, "") for draw in ((points, names), more))
    assert {name: one[name].value for name in DISTANCES} == {name: other[name].value for name in DISTANCES}


def test_scfid_is_refused_without_cells_enough_and_shrinkage_has_a_name_of_its_own(yardstick) -> None:
    wide = replace(yardstick, points=np.zeros((30, 20)))
    draws = [(sample(1, {"B": 12, "T": 20}, 20), sample(0, {"B": 12, "T": 20}, 20))]
    found = population_metrics(draws, wide, "")
    assert found["scfid"].value is None
    assert found["scfid"].note.startswith("mean over 0 of 2 types, those with more than 20 cells")
    assert found["scfid_shrunk"].value > 0
    assert "Ledoit-Wolf" in found["scfid_shrunk"].estimator
    draws = [(sample(1, {"B": 12, "T": 21}, 20), sample(0, {"B": 12, "T": 21}, 20))]
    found = population_metrics(draws, wide, "")
    assert found["scfid"].value > 0
    assert found["scfid"].note.startswith("mean over 1 of 2 types")


def test_intervals_are_seeded_hold_the_value_and_say_what_they_are(yardstick) -> None:
    draws = [(sample(1, {"B": 12, "T": 15}, shift=0.5), sample(0, {"B": 12, "T": 15}))]
    found, again = (population_metrics(draws, yardstick, "") for _ in range(2))
    assert found == again
    for name in DISTANCES:
        low, high = found[name].interval
        assert 0 <= low < found[name].value < high
        resamples = 40 if name == "gromov_wasserstein" else 100
        assert f"interval of {resamples} resamples within types, centred" in found[name].note
    other = population_metrics(draws, replace(yardstick, seed=1), "")
    assert other["mmd"].interval != found["mmd"].interval
    assert other["mmd"].value == found["mmd"].value


def test_what_takes_too_long_to_resample_has_no_interval_and_says_so(yardstick) -> None:
    draws = [(sample(1, {"B": 201}, 2, shift=0.5), sample(0, {"B": 201}, 2))]
    found = population_metrics(draws, yardstick, "")
    assert found["gromov_wasserstein"].value > 0
    assert found["gromov_wasserstein"].interval is None
    assert found["gromov_wasserstein"].note.endswith("no interval: too many cells or dimensions to resample")
    assert found["wasserstein"].interval is not None


def test_centred_intervals_cover_what_samples_of_that_size_have_on_average() -> None:
    """Percentiles as they are do not: resampled samples are further apart than samples."""
    rng, covered, naive = np.random.default_rng(0), 0, 0
    draws = [(rng.normal(size=(40, 10)), rng.normal(size=(40, 10)) + 0.3) for _ in range(80)]
    values = [mmd(*draw, 3.0) for draw in draws]
    for value, draw in zip(values, draws, strict=True):
        found = mmd_resamples(*draw, 3.0, resampled(40, rng, 100), resampled(40, rng, 100))
        low, high = centred_interval(value, found, 0.0)
        covered += low <= np.mean(values) <= high
        left, right = np.percentile(found, [2.5, 97.5])
        naive += left <= np.mean(values) <= right
    assert covered >= 72
    assert naive < 60


@pytest.mark.parametrize("key", [GENERATION, "perturbation_response_generation"])
def test_real_cells_have_every_distance(key: str, sections) -> None:
    yardstick = sections[key].yardstick
    found = measures.real_metrics(yardstick.held_out.names, yardstick)
    for name in (*DISTANCES, "spread", "diversity"):
        assert found[name].value is not None, name
        assert "half" not in found[name].note


def test_where_no_others_are_of_their_types_one_half_is_held_against_the_other(sections) -> None:
    yardstick = sections["perturbation_response_generation@ood"].yardstick
    found = measures.real_metrics(yardstick.held_out.names, yardstick)
    assert found["mmd"].value is not None
    assert found["mmd"].n == len(yardstick.held_out) // 2
    for name in DISTANCES:
        assert "one half of 32 real held-out cells against the other: fewer cells, hence more noise" in found[name].note
    assert found["wasserstein"].value is None  # eight of a type and state are too few
    assert found["wasserstein"].note.startswith("mean over 0 of 2 types, those with more than 9 cells")


def test_generated_cells_that_are_the_real_ones_are_below_the_floor_of_real_cells(yardstick) -> None:
    real = yardstick.points, list(yardstick.held_out.names)
    floor = measures.real_metrics(yardstick.held_out.names, yardstick)
    itself = population_metrics([(real, real)], yardstick, "")
    for name in DISTANCES:
        assert itself[name].value == pytest.approx(0, abs=1e-9), name
        assert floor[name].value > 1e-3, name
