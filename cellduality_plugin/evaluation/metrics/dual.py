"""How well the dual rebuilds what was hidden, from answers and from true ones; and what could not be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from cellduality_plugin.evaluation.metrics.registry import METRICS, Measurement, metric
from cellduality_plugin.evaluation.metrics.statistics import mean_of
from cellduality_plugin.evaluation.predictions import Prediction
from cellduality_plugin.evaluation.real_cells import Reference

DUAL = "similarity of what was hidden and what was rebuilt, mean over answers, 0 where nothing could be read"


@metric("sampled_dual_similarity", "sampled dual", "higher", group="dual", estimator=DUAL)
@metric("dual_similarity", "dual similarity", "higher", group="dual", estimator=DUAL, sums_up=True)
def similarity(prediction: Prediction) -> float | None:
    return prediction.similarity


@metric(
    "dual_given_truth", "dual given truth", "higher", group="dual", estimator=f"{DUAL}; rebuilt from the true answer"
)
def truth_similarity(prediction: Prediction) -> float | None:
    """Return how well the dual is played from the true answer: both directions may agree on what is wrong."""
    return prediction.truth_similarity


def measure(
    reference: Reference, made: Sequence[Prediction], drawn: Sequence[Prediction] = (), *, truth: bool = True
) -> dict[str, Measurement]:
    """Return the mean similarities of the answers that count, of drawn labels, and of true answers if wanted."""
    groups = {"dual_similarity": made, "sampled_dual_similarity": drawn, "dual_given_truth": made if truth else ()}
    found: dict[str, Measurement] = {}
    for key, predictions in groups.items():
        values = [(p.id, value) for p in predictions if (value := METRICS[key].of(p)) is not None]
        if values:
            found[key] = METRICS[key].measurement(mean_of(values, reference))
    return found


def failures(predictions: Sequence[Prediction]) -> dict[str, int]:
    """Return how often each reason kept an answer or a reconstruction from being read."""
    primal = Counter(p.failure for p in predictions if p.failure)
    dual = Counter(f"dual_{p.dual_failure}" for p in predictions if p.dual_failure)
    return dict(sorted((primal + dual).items()))
