"""Every check on one run."""

from __future__ import annotations

import dataclasses

from cellduality_plugin.openrlhf_hooks.doctor.checks import CHECKS, FLAGS
from cellduality_plugin.openrlhf_hooks.doctor.finding import SEVERITIES, Finding
from cellduality_plugin.openrlhf_hooks.doctor.run import Run


def examine(run: Run) -> tuple[Finding, ...]:
    """Return all findings on ``run``, errors first; where flags cannot be read, what is the matter with the flags."""
    chosen = [*FLAGS]
    if run.flags.args is not None:
        chosen += [check for trainers, check in CHECKS if run.command.trainer in trainers]
    found = [dataclasses.replace(finding, check=check.__name__) for check in chosen for finding in check(run)]
    return tuple(sorted(found, key=lambda finding: SEVERITIES.index(finding.severity)))
