"""Findings and memory for people and for machines, and the list of checks for the documentation."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Iterator, Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from cellduality_plugin.openrlhf_hooks.doctor.checks import CHECKS, FLAGS
from cellduality_plugin.openrlhf_hooks.doctor.command import RL, SFT
from cellduality_plugin.openrlhf_hooks.doctor.finding import SEVERITIES, Finding
from cellduality_plugin.openrlhf_hooks.doctor.machine import GIB
from cellduality_plugin.openrlhf_hooks.doctor.memory import cache_tokens, parts, totals
from cellduality_plugin.openrlhf_hooks.doctor.run import Run

_COLOURS = {"error": "bold red", "warning": "yellow", "note": "dim"}


def findings_table(found: Sequence[Finding]) -> Table:
    """Return the findings as a table."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("", "what", "where", "how to mend it"):
        table.add_column(heading, overflow="fold")
    for finding in found:
        style = _COLOURS[finding.severity]
        table.add_row(f"[{style}]{finding.severity}[/]", *map(escape, (finding.what, finding.where, finding.mend)))
    return table


def memory_table(run: Run) -> Table:
    """Return the estimate of memory as a table, in GiB."""
    found = parts(run)
    table = Table(
        title="memory by formula, GiB", title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False
    )
    for heading in ("part", "where"):
        table.add_column(heading)
    for heading in ("loading", "generating", "training"):
        table.add_column(heading, justify="right")
    table.add_column("formula")
    for part in found:
        table.add_row(
            part.name, part.where, _gib(part.loading), _gib(part.generating), _gib(part.training), part.formula
        )
    for place, (generating, training, loading) in totals(found).items():
        table.add_row("[bold]all[/]", place, _gib(loading), _gib(generating), _gib(training), "")
    tokens = cache_tokens(run)
    if tokens is not None and run.model is not None:
        table.add_row("cache", "engine", "", f"{tokens} tokens", "", f"{run.model.cache_bytes / 1024:g} KiB a token")
    return table


def summary(found: Sequence[Finding]) -> str:
    """Return how many findings there are of each severity.

    Examples
    --------
    >>> summary([])
    '0 errors, 0 warnings, 0 notes'
    """
    counts = {severity: sum(finding.severity == severity for finding in found) for severity in SEVERITIES}
    return ", ".join(f"{count} {severity}{'' if count == 1 else 's'}" for severity, count in counts.items())


def as_json(run: Run, found: Sequence[Finding]) -> str:
    """Return findings and memory (bytes) as one JSON object."""
    memory = [dataclasses.asdict(part) for part in parts(run)]
    report = {"trainer": run.command.trainer, "findings": [finding.as_dict() for finding in found], "memory": memory}
    return json.dumps(report, indent=2)


def checks_as_markdown() -> str:
    """Return what is checked and why, as a Markdown table made of the checks' docstrings."""
    return "\n".join(["| check | stage | what it finds | why |", "|---|---|---|---|", *_rows()]) + "\n"


def _rows() -> Iterator[str]:
    for trainers, check in (*(((SFT, RL), check) for check in FLAGS), *CHECKS):
        first, _, rest = (inspect.getdoc(check) or "").partition("\n")
        stage = "both" if len(trainers) > 1 else "SFT" if trainers[0] == SFT else "RL"
        yield f"| `{check.__name__}` | {stage} | {first.strip()} | {' '.join(rest.split())} |"


def _gib(size: float) -> str:
    return f"{size / GIB:.2f}" if size else ""
