"""Findings, memory and plans for people and for machines, and the list of checks for the documentation."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from cellduality_plugin.openrlhf_hooks.doctor.check import SEVERITIES, Finding
from cellduality_plugin.openrlhf_hooks.doctor.checks import CHECKS
from cellduality_plugin.openrlhf_hooks.doctor.command import SFT
from cellduality_plugin.openrlhf_hooks.doctor.machine import GIB
from cellduality_plugin.openrlhf_hooks.doctor.memory import cache_tokens, parts, totals
from cellduality_plugin.openrlhf_hooks.doctor.plan import Stage
from cellduality_plugin.openrlhf_hooks.doctor.rates import Rates
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


def plan_as_json(stages: Sequence[Stage], rates: Rates, sources: Mapping[str, str]) -> str:
    """Return a plan as one JSON object; what has no end, because an engine lacks the room, is null."""
    made = [dataclasses.asdict(stage) for stage in stages]
    for each in made:
        each["seconds"] = each["seconds"] if math.isfinite(each["seconds"]) else None
    named = {name: {"value": value, "source": sources[name]} for name, value in rates.model_dump().items()}
    return json.dumps({"stages": made, "rates": named}, indent=2)


def plan_table(stages: Sequence[Stage], gpu_memory: float) -> Table:
    """Return a plan as a table; a stage that does not fit into a card of so many bytes is said to."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("stage")
    for heading in ("cards", f"GiB of {gpu_memory / GIB:.0f}", "million tokens", "tokens a second", "hours", ""):
        table.add_column(heading, justify="right")
    for stage in stages:
        fits = stage.gib is None or stage.gib * GIB <= gpu_memory
        gib, ends = "" if stage.gib is None else f"{stage.gib:.1f}", math.isfinite(stage.seconds)
        rate, hours = f"{stage.tokens / (stage.seconds or 1):,.0f}", f"{stage.seconds / 3600:.2f}"
        cells = (str(stage.cards), gib, f"{stage.tokens / 1e6:.2f}", rate if ends else "", hours if ends else "")
        table.add_row(stage.name, *cells, "" if fits and ends else "[bold red]does not fit[/]")
    table.add_row("[bold]all[/]", "", "", "", "", f"{sum(stage.seconds for stage in stages) / 3600:.2f}", "")
    return table


def plan_notes(rates: Rates, sources: Mapping[str, str]) -> str:
    """Return what a plan rests on, a rate a line."""
    lines = [f"{name} = {value}  ({sources[name]})" for name, value in rates.model_dump().items()]
    return "\n".join(["By formula; no rate was ever measured on a card. --assume NAME=VALUE changes", *lines])


def checks_as_markdown() -> str:
    """Return what is checked and why, as a Markdown table made of the checks' docstrings."""
    lines = ["| check | stage | what it finds | why |", "|---|---|---|---|"]
    for check in CHECKS:
        stage = "both" if len(check.trainers) > 1 else "SFT" if check.trainers == (SFT,) else "RL"
        lines.append(f"| `{check.name}` | {stage} | {' | '.join(check.what_and_why)} |")
    return "\n".join(lines) + "\n"
