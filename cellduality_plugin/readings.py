"""What the numbers of a run say: OpenRLHF only averages, so a ratio is logged as two means, and divided here."""

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
"""Reading -> (what is logged of it, what that is divided by)."""

BY_TASK: dict[str, str] = {
    "dual_reward": "dual_share",
    "dual_similarity": "dual_share",
    "dual_validity": "dual_share",
    "dual_truth": "dual_truth_share",
}
"""The same for what is logged by task, as ``KEY/TASK``."""

_ONLY_DIVIDE = {"dual_copyable/rebuilt", "dual_copyable/response", "dual_groups", "dual_label_groups", "dual_lists"}
_STEP = re.compile(r"Global step (\d+): \{(.*)\}")
_PAIR = re.compile(r"'([^']+)': (-?(?:\d[\d.]*(?:e[+-]?\d+)?|inf|nan))", re.IGNORECASE)


def step_metrics(line: str) -> tuple[int, dict[str, float]] | None:
    """Return (step, {metric: value}) of a line in which the trainer logs a step; None of any other line.

    Examples
    --------
    >>> step_metrics("(pid=7) Global step 1: {'reward': 0.25, 'kl': 1e-05, 'name': 'x'}")
    (1, {'reward': 0.25, 'kl': 1e-05})
    >>> step_metrics("noise")
    """
    if not (found := _STEP.search(line)):
        return None
    return int(found[1]), {name: float(value) for name, value in _PAIR.findall(found[2])}


def ratio_of(name: str) -> tuple[str, str] | None:
    """Return (numerator, denominator) of the reading ``name``; None if it stands for itself.

    Examples
    --------
    >>> ratio_of("dual_truth/cell_type_annotation"), ratio_of("dual_requests")
    (('dual_truth/cell_type_annotation', 'dual_truth_share/cell_type_annotation'), None)
    """
    kind, slash, task = name.partition("/")
    if slash and kind in BY_TASK:
        return name, f"{BY_TASK[kind]}/{task}"
    return RATIOS.get(name)


def only_divides(name: str) -> bool:
    """Return whether a metric says nothing but what another is to be divided by."""
    return name in _ONLY_DIVIDE or name.partition("/")[0] in BY_TASK.values()


def readings(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return what a step's metrics say, sorted by name; what the step says nothing about is left out.

    Parameters
    ----------
    metrics
        The means over the rollouts of a step, as TensorBoard and the trainer's log have them.

    Examples
    --------
    >>> readings({"reward": 0.3, "dual_reward/a": 0.1, "dual_share/a": 0.5, "dual_truth/a": 0, "dual_truth_share/a": 0})
    {'dual_reward/a': 0.2, 'reward': 0.3}
    """
    found = {}
    for name in sorted({*metrics, *RATIOS}):
        ratio = ratio_of(name)
        if ratio is None:
            if not only_divides(name):
                found[name] = metrics[name]
        elif name in metrics and ratio[1] not in metrics:
            found[name] = metrics[name]  # of a run of before there was anything to divide by
        elif ratio[0] in metrics and metrics.get(ratio[1], 0.0) > 0:
            found[name] = metrics[ratio[0]] / metrics[ratio[1]]
    return found
