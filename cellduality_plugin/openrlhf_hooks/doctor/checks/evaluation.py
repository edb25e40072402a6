"""Evaluation inside training, and what its numbers are."""

from __future__ import annotations

from collections.abc import Iterator

from cellduality_plugin.openrlhf_hooks.doctor.finding import Finding, note, warning
from cellduality_plugin.openrlhf_hooks.doctor.run import Run


def evaluation_without_rows(run: Run) -> Iterator[Finding]:
    """Evaluation steps without rows, or rows without steps.

    Without the other neither does anything.
    """
    if run.get("eval.dataset") and run.get("eval.steps") == -1:
        yield warning("rows for evaluation, and no step at which it happens", "--eval.steps", "pass how often, e.g. 20")
    elif run.get("eval.steps") != -1 and not run.get("eval.dataset"):
        yield warning("steps for evaluation, and no rows", "--eval.dataset", "pass rows, or leave out --eval.steps")


def meaning_of_evaluation(run: Run) -> Iterator[Finding]:
    """Evaluation that goes through the agent.

    What is logged as pass1 is then the mean dual reward, not accuracy; there is none before the first update; the same
    prompt in two data sources is counted under the last; the best checkpoint is chosen by it.
    """
    if run.get("eval.dataset") and run.is_ours:
        yield note(
            "eval_*_pass1 is the mean dual reward, not accuracy, and has no step 0",
            "--eval.dataset",
            "cellduality evaluate measures accuracy, before and after",
        )
