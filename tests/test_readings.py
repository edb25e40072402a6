from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.readings import BY_TASK, RATIOS, only_divides, ratio_of, readings, step_metrics

NAMES = sorted(
    {"reward", "kl", "dual_requests", *RATIOS}
    | {part for pair in RATIOS.values() for part in pair}
    | {f"{kind}/t" for pair in BY_TASK.items() for kind in pair}
)


@given(st.dictionaries(st.sampled_from(NAMES), st.floats(0, 1)))
def test_every_reading_is_a_metric_or_the_quotient_of_two(metrics):
    found = readings(metrics)
    assert list(found) == sorted(found)
    for name, value in found.items():
        ratio = ratio_of(name)
        if ratio is None or ratio[1] not in metrics:
            assert value == metrics[name]
        else:
            assert value == metrics[ratio[0]] / metrics[ratio[1]]
    for name in metrics:
        assert name in found or only_divides(name) or ratio_of(name) is not None


def test_the_mean_over_groups_is_what_the_last_rollouts_logged_divided():
    """Two groups of four with three and with one distinct answer: three rollouts log 0, the last the figure x 4."""
    logged = [0.0, 0.0, 0.0, 12.0, 0.0, 0.0, 0.0, 4.0]
    groups = [0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0, 4.0]
    means = {"dual_distinct_answers": sum(logged) / 8, "dual_groups": sum(groups) / 8}
    assert readings(means) == {"dual_distinct_answers": 2.0}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("✨ Global step 12: {'reward': 0.5, 'dual_share/t': 2e-3}", (12, {"reward": 0.5, "dual_share/t": 0.002})),
        ("Global step 3: {'loss': nan, 'x': -inf}", (3, {"loss": math.nan, "x": -math.inf})),
        ("Global step 3: {}", (3, {})),
        ("Global step x: {'reward': 0.5}", None),
        ("", None),
    ],
)  # fmt: skip
def test_a_step_is_read_from_the_trainers_log(line, expected):
    found = step_metrics(line)
    assert str(found) == str(expected)
