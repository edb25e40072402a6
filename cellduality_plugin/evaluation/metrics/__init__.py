"""What is measured of a checkpoint: one decorated function a metric; every file of the folder is imported."""

import importlib
import pkgutil

from cellduality_plugin.evaluation.metrics.registry import METRICS, Measurement, metric

__all__ = ["METRICS", "Measurement", "metric"]

for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")
