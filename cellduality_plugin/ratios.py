"""Metrics that are ratios: OpenRLHF only averages, so numerator and denominator are logged, and divided here."""

from __future__ import annotations

import re
from collections.abc import Mapping

RATIOS: dict[str, tuple[str, str]] = {
    "dual_consistency": ("dual_similarity", "dual_answer_parsed"),
    "dual_copied/rebuilt": ("dual_copied/rebuilt", "dual_copyable/rebuilt"),
    "dual_copied/response": ("dual_copied/response", "dual_copyable/response"),
    "dual_distinct_answers": ("dual_distinct_answers", "dual_groups"),
    "dual_failures": ("dual_failed", "dual_answer_parsed"),
    "dual_label_entropy": ("dual_label_entropy", "dual_label_groups"),
    "dual_repeated_genes": ("dual_repeated_genes", "dual_lists"),
    "dual_success": ("dual_succeeded", "dual_answer_parsed"),
    "dual_time_share": ("dual_seconds", "dual_rollout_seconds"),
    "dual_unknown_genes": ("dual_unknown_genes", "dual_lists"),
    "dual_zero_variance": ("dual_zero_variance", "dual_groups"),
}
"""Ratio -> (numerator, denominator), both as logged."""

BY_TASK: dict[str, str] = {
    "dual_reward": "dual_share",
    "dual_similarity": "dual_share",
    "dual_validity": "dual_share",
    "dual_truth": "dual_truth_share",
}
"""Ratio -> denominator of what is logged by task, as ``KEY/TASK``."""

_DENOMINATORS = {"dual_copyable/rebuilt", "dual_copyable/response", "dual_groups", "dual_label_groups", "dual_lists"}
_STEP = re.compile(r"Global step (\d+): \{(.*)\}")
_PAIR = re.compile(r"'([^']+)': (-?(?:\d[\d.]*(?:e[+-]?\d+)?|inf|nan))", re.IGNORECASE)


def step_metrics(line: str) -> tuple[int, dict[str, float]] | None:
    """Return (step, {metric: value}) of a line in which the trainer logs a step; None of any other line."""
    if not (found := _STEP.search(line)):
        return None
    return int(found[1]), {name: float(value) for name, value in _PAIR.findall(found[2])}


def with_ratios(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of a step, ratios divided, sorted by name; a ratio of 0 / 0 and denominators are left out.

    ``metrics`` are means over the rollouts of a step, as TensorBoard and the trainer's log have them.

    Examples
    --------
    >>> with_ratios({"kl": 0.3, "dual_reward/a": 0.1, "dual_share/a": 0.5, "dual_truth/a": 0, "dual_truth_share/a": 0})
    {'dual_reward/a': 0.2, 'kl': 0.3}
    """
    found = {}
    for name in sorted({*metrics, *RATIOS}):
        kind, _, task = name.partition("/")
        over, under = (name, f"{BY_TASK[kind]}/{task}") if task and kind in BY_TASK else RATIOS.get(name, ("", ""))
        if not over:
            if name not in _DENOMINATORS and kind not in BY_TASK.values():
                found[name] = metrics[name]
        elif name in metrics and under not in metrics:
            found[name] = metrics[name]  # logged by a version that had no denominator
        elif over in metrics and metrics.get(under, 0.0) > 0:
            found[name] = metrics[over] / metrics[under]
    return found
