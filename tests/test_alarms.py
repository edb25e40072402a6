"""Each alarm is raised when it should, once, and a healthy run is silent; ratios are of what is logged."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.alarms import BY_TASK, RATIOS, SIGNS, alarms, step_metrics, with_ratios

STEPS = 30
HEALTHY = {
    "reward": 0.4, "dual_answer_parsed": 0.95, "dual_copied/response": 0.1, "dual_copyable/response": 0.5,
    "dual_failed": 0.02, "dual_failed/no_answer": 0.02, "dual_groups": 1.0, "dual_label_entropy": 0.3,
    "dual_label_groups": 0.5, "dual_leak/answer": 0.0, "dual_leak/trace": 0.2, "dual_similarity": 0.4,
    "dual_truncated": 0.05, "dual_validity": 0.9, "dual_zero_variance": 0.3,
}  # fmt: skip


def run(**last: float):
    """Return steps that go evenly from healthy values to ``last``; '__' in a name stands for '/'."""
    goal = {name.replace("__", "/"): value for name, value in last.items()}
    assert goal.keys() <= HEALTHY.keys()

    def at(step: int) -> dict[str, float]:
        share = (step - 1) / (STEPS - 1)
        return {name: value + share * (goal.get(name, value) - value) for name, value in HEALTHY.items()}

    return [(step, at(step)) for step in range(1, STEPS + 1)]


UNREAD = {"dual_answer_parsed": 0.0, "dual_zero_variance": 1.0, "dual_groups": 1.0}  # no temperature would help
SICK = [
    ("hollow_consistency", run(dual_similarity=0.7, dual_validity=0.6)),
    ("hollow_consistency", run(dual_similarity=0.7, dual_label_entropy=0.0)),
    ("zero_variance", run(dual_zero_variance=0.99)),
    ("unreadable", run(dual_answer_parsed=0.01, dual_failed=0.0, dual_similarity=0.0)),
    ("unreadable", [(step, UNREAD) for step in range(5, 15)]),
    ("dual_failures", run(dual_failed=0.6, dual_failed__no_answer=0.6)),
    ("truncation", run(dual_truncated=0.5)),
    ("copying", run(dual_copied__response=0.45)),
    ("leaking", run(dual_leak__answer=0.5)),
    ("leaking", run(dual_leak__trace=0.9)),
]


@pytest.mark.parametrize(("name", "steps"), SICK)
def test_what_goes_wrong_is_reported_once(name, steps):
    [alarm] = alarms(steps)
    assert alarm.name == name
    assert {each for each, _ in SICK} == SIGNS.keys(), "every sign is tested"
    assert 5 < alarm.step < STEPS, "neither before it drifted nor only when all is lost"
    assert name != "dual_failures" or "most of them no_answer" in alarm.what, "the cause is named"
    assert "nan" not in str(alarm)


@pytest.mark.parametrize(
    "steps",
    [
        run(),
        run(dual_similarity=0.8),  # that is what training is for
        run(dual_similarity=0.8, dual_label_entropy=0.16),  # surer of itself, not collapsed
        run(dual_label_entropy=0.0, dual_similarity=0.42),
        run(dual_validity=0.3, dual_similarity=0.2),
        run(dual_zero_variance=0.75, dual_truncated=0.15, dual_failed=0.15),
        [(step, {"reward": 0.5, "kl": 0.1, "dual_similarity": step / 10}) for step in range(1, 9)],
        run(dual_zero_variance=1.0)[-4:],  # too young to be judged
        [],
        # What most steps lack.
        [
            (n, {k: v for k, v in at.items() if k != "dual_leak/answer" or n % 3 == 1})
            for n, at in run(dual_leak__answer=1)
        ],
        [*run()[:9], (10, HEALTHY | {"dual_zero_variance": 1.0, "dual_truncated": 0.9}), *run()[10:]],  # one bad step
    ],
)
def test_a_healthy_run_is_silent(steps):
    assert alarms(steps) == []


@given(
    st.lists(
        st.dictionaries(st.sampled_from(sorted(HEALTHY)), st.floats(allow_nan=True, allow_infinity=True)), max_size=20
    )
)
def test_no_series_of_numbers_breaks_it_and_no_alarm_comes_twice(series):
    found = alarms(enumerate(series, start=1))
    assert len({alarm.name for alarm in found}) == len(found)


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
