from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.evaluation.distances import mmd, resampled
from cellduality_plugin.evaluation.metrics.statistics import bootstrap_interval, centred_interval, mean_of


def test_bootstrap_is_seeded_and_covers_the_truth_about_as_often_as_it_says() -> None:
    rng, covered = np.random.default_rng(0), 0
    assert bootstrap_interval(np.mean, np.arange(9.0), seed=3) == bootstrap_interval(np.mean, np.arange(9.0), seed=3)
    for trial in range(200):
        low, high = bootstrap_interval(np.mean, rng.normal(size=60), seed=trial, resamples=200)
        covered += low <= 0 <= high
    assert 0.88 <= covered / 200 <= 0.99


@given(st.lists(st.floats(0, 1), min_size=2, max_size=12), st.integers(2, 5))
def test_draws_of_one_row_are_no_evidence_of_their_own(sections, values: list[float], draws: int) -> None:
    reference = replace(sections["cell_type_annotation"].reference, resamples=50)
    rows = [(f"row {place}", value) for place, value in enumerate(values, start=10)]
    once = mean_of(rows, reference)
    assert mean_of(rows * draws, reference).interval == pytest.approx(once.interval)
    assert once.interval == pytest.approx(bootstrap_interval(np.mean, values, seed=0, resamples=50))


def test_centred_intervals_cover_what_samples_of_that_size_have_on_average() -> None:
    """Percentiles as they are do not: resampled samples are further apart than samples."""
    rng, covered, naive = np.random.default_rng(0), 0, 0
    draws = [(rng.normal(size=(40, 10)), rng.normal(size=(40, 10)) + 0.3) for _ in range(80)]
    values = [mmd(*draw, bandwidth=3.0)[0] for draw in draws]
    for value, draw in zip(values, draws, strict=True):
        found = mmd(*draw, (resampled(40, rng, 100), resampled(40, rng, 100)), bandwidth=3.0)
        low, high = centred_interval(value, found, 0.0)
        covered += low <= np.mean(values) <= high
        left, right = np.percentile(found, [2.5, 97.5])
        naive += left <= np.mean(values) <= right
    assert covered >= 72
    assert naive < 60
