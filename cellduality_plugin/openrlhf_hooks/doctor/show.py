"""Findings and memory for people and for machines, and the list of checks for the documentation."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from cellduality_plugin.openrlhf_hooks.doctor.check import SEVERITIES, Finding
from cellduality_plugin.openrlhf_hooks.doctor.checks import CHECKS
from cellduality_plugin.openrlhf_hooks.doctor.command import SFT
from cellduality_plugin.openrlhf_hooks.doctor.machine import GIB
from cellduality_plugin.openrlhf_hooks.doctor.memory import cache_tokens, parts, totals
from cellduality_plugin.openrlhf_hooks.doctor.run import Run

_COLOURS = {"error": "bold red", "warning": "yellow", "note": "dim"}


def findings_table(found: Sequence[Finding]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("", "what", "where", "what to do"):
        table.add_column(heading, overflow="fold")
    for finding in found:
        style = _COLOURS[finding.severity]
        table.add_row(f"[{style}]{finding.severity}[/]", *map(escape, (finding.what, finding.where, finding.hint)))
    return table


def memory_table(run: Run) -> Table:
    title, found = "memory by formula, GiB", parts(run)
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("part", "where", "loading", "generating", "training", "formula"):
        table.add_column(heading, justify="right" if heading.endswith("ing") else "left")
    for part in (*found, *totals(found).values()):
        sizes = (f"{size / GIB:.2f}" if size else "" for size in (part.loading, part.generating, part.training))
        table.add_row("[bold]all[/]" if part.name == "all" else part.name, part.where, *sizes, part.formula)
    tokens = cache_tokens(run)
    if tokens is not None and run.model is not None:
        table.add_row("cache", "engine", "", f"{tokens} tokens", "", f"{run.model.cache_bytes / 1024:g} KiB a token")
    return table


def summary(found: Sequence[Finding]) -> str:
    """Return how many findings there are of each severity.

    Examples
    --------
    >>> summary([Finding("warning", "what", "where")])
    '0 errors, 1 warning, 0 notes'
    """
    counts = {severity: sum(finding.severity == severity for finding in found) for severity in SEVERITIES}
    return ", ".join(f"{count} {severity}{'' if count == 1 else 's'}" for severity, count in counts.items())


def as_json(run: Run, found: Sequence[Finding]) -> str:
    """Return findings and memory (bytes) as one JSON object."""
    findings, memory = (list(map(dataclasses.asdict, some)) for some in (found, parts(run)))
    return json.dumps({"trainer": run.command.trainer, "findings": findings, "memory": memory}, indent=2)


def checks_as_markdown() -> str:
    """Return what is checked and why, as a Markdown table made of the checks' docstrings."""
    lines = ["| check | stage | what it finds | why |", "|---|---|---|---|"]
    for check in CHECKS:
        stage = "both" if len(check.trainers) > 1 else "SFT" if check.trainers == (SFT,) else "RL"
        lines.append(f"| `{check.name}` | {stage} | {' | '.join(check.what_and_why)} |")
    return "\n".join(lines) + "\n"
