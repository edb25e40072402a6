"""What a reward server counts, in Prometheus' words."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from cellduality_plugin.scoring import Score

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 180.0)


class Metrics:
    """The counters of one server, apart from those of any other in the process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Requests for rewards, by status code.", "code")
        self.rewards = self._counter("rewards", "Rollouts judged.")
        self.dual_requests = self._counter("dual_requests", "Calls that the dual took.")
        self.failures = self._counter("failures", "Rollouts that earned nothing, by cause.", "cause")
        self.in_flight = Gauge("cellduality_in_flight", "Rollouts being judged.", registry=self.registry)
        self.queue = Gauge("cellduality_queue", "Rollouts that wait to be judged.", registry=self.registry)
        self.seconds = Histogram(
            "cellduality_request_seconds", "From a request to its reply.", buckets=_SECONDS, registry=self.registry
        )

    def judged(self, score: Score) -> None:
        """Count a rollout that was judged."""
        self.rewards.inc()
        self.dual_requests.inc(score.logs["dual_requests"])
        if score.failure:
            self.failures.labels(score.failure).inc()

    def page(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(f"cellduality_{name}", help_text, labels, registry=self.registry)
