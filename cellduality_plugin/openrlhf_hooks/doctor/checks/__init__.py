"""All checks. A new one is a decorated function in one of these files, and a line in the table of its test."""

from __future__ import annotations

from cellduality_plugin.openrlhf_hooks.doctor.check import SEVERITIES, Check, Finding
from cellduality_plugin.openrlhf_hooks.doctor.checks import batches, flags, machine, outputs, reward, rows
from cellduality_plugin.openrlhf_hooks.doctor.run import Run

CHECKS: tuple[Check, ...] = tuple(
    found
    for module in (flags, reward, batches, rows, outputs, machine)
    for found in vars(module).values()
    if isinstance(found, Check)
)


def examine(run: Run) -> tuple[Finding, ...]:
    """Return all findings on ``run``, errors first; where the flags cannot be read, only what is wrong with them."""
    found = [finding for check in CHECKS for finding in check(run)]
    return tuple(sorted(found, key=lambda finding: SEVERITIES.index(finding.severity)))
