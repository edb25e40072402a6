"""What a server counts is its own, and what Prometheus reads."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from cellduality_plugin.openrlhf_hooks.remote.metrics import Metrics
from cellduality_plugin.scoring import Score


def samples(metrics: Metrics) -> dict[str, float]:
    families = text_string_to_metric_families(metrics.page().decode())
    return {
        sample.name + "".join(sample.labels.values()): sample.value for family in families for sample in family.samples
    }


def test_rollouts_are_counted_with_their_dual_calls_and_failures():
    metrics, other = Metrics(), Metrics()
    metrics.judged(Score(0.5, {"dual_requests": 3.0}))
    metrics.judged(Score(0.0, {"dual_requests": 1.0}, "timeout"))
    found = samples(metrics)
    assert found["cellduality_rewards_total"] == 2
    assert found["cellduality_dual_requests_total"] == 4
    assert found["cellduality_failures_totaltimeout"] == 1
    assert samples(other)["cellduality_rewards_total"] == 0
