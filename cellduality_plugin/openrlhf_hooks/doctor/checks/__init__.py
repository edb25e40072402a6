"""All checks. A new one is a function or a row of the table here, a row in CHECKS.md and one in the test's tables."""

from __future__ import annotations

from cellduality_plugin.openrlhf_hooks.doctor.check import SEVERITIES, Check, Finding
from cellduality_plugin.openrlhf_hooks.doctor.checks import launch, rows, table
from cellduality_plugin.openrlhf_hooks.doctor.run import Run

_FUNCTIONS = [each for room in (launch, rows) for each in vars(room).values() if isinstance(each, Check)]
CHECKS: list[Check] = [*_FUNCTIONS, *table.CHECKS]


def examine(run: Run) -> list[Finding]:
    """Return all findings on ``run``, errors first; where the flags cannot be read, only what is wrong with them."""
    found = [finding for check in CHECKS for finding in check(run)]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))
