from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.ratios import BY_TASK, RATIOS, step_metrics, with_ratios

ALL = {**{name: (name, f"{under}/t") for kind, under in BY_TASK.items() for name in [f"{kind}/t"]}, **RATIOS}
PARTS = {part for pair in ALL.values() for part in pair}


@given(st.dictionaries(st.sampled_from(sorted({"reward", "kl", "dual_requests", *ALL, *PARTS})), st.floats(0, 1)))
def test_every_figure_is_a_metric_or_the_quotient_of_two(metrics):
    found = with_ratios(metrics)
    assert list(found) == sorted(found)
    for name, value in found.items():
        over, under = ALL.get(name, (name, ""))
        assert value == (metrics[over] / metrics[under] if under in metrics else metrics[name])
    assert not {name for name in metrics if name not in found} - PARTS - ALL.keys()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("✨ Global step 12: {'reward': 0.5, 'dual_share/t': 2e-3}", (12, {"reward": 0.5, "dual_share/t": 0.002})),
        ("Global step 3: {'loss': nan, 'x': -inf}", (3, {"loss": math.nan, "x": -math.inf})),
        ("Global step 3: {}", (3, {})),
        ("Global step x: {'reward': 0.5}", None),
    ],
)
def test_a_step_is_read_from_the_trainers_log(line, expected):
    assert str(step_metrics(line)) == str(expected)
