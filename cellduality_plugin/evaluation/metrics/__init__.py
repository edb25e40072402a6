"""What is measured of a checkpoint: one decorated function a metric, in one registry. A new file is named here."""

from cellduality_plugin.evaluation.metrics import cells, dual, labels, responses
from cellduality_plugin.evaluation.metrics.labels import accuracy, macro_f1
from cellduality_plugin.evaluation.metrics.registry import METRICS, Measurement, metric
from cellduality_plugin.evaluation.metrics.statistics import bootstrap_interval

__all__ = [
    "METRICS", "Measurement", "accuracy", "bootstrap_interval", "cells", "dual", "labels", "macro_f1", "metric",
    "responses",
]  # fmt: skip
