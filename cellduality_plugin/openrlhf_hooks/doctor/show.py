"""Findings, memory and plans for people and for machines, and the list of checks for the documentation."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.table import Table

from cellduality_plugin.openrlhf_hooks.doctor.check import SEVERITIES, Finding
from cellduality_plugin.openrlhf_hooks.doctor.machine import GIB
from cellduality_plugin.openrlhf_hooks.doctor.memory import cache_tokens, parts, totals
from cellduality_plugin.openrlhf_hooks.doctor.plan import Rates, Stage
from cellduality_plugin.openrlhf_hooks.doctor.run import Run

_COLOURS = {"error": "bold red", "warning": "yellow", "note": "dim"}


def findings_table(found: Sequence[Finding]) -> Table:
    table = _table("", "what", "where", "what to do")
    for finding in found:
        style = _COLOURS[finding.severity]
        table.add_row(f"[{style}]{finding.severity}[/]", *map(escape, (finding.what, finding.where, finding.hint)))
    return table


def memory_table(run: Run) -> Table:
    found = parts(run)
    table = _table("part", "where", "loading", "generating", "training", "formula", right=range(2, 5))
    table.title, table.title_justify = "memory by formula, GiB", "left"
    for part in (*found, *totals(found).values()):
        sizes = (f"{size / GIB:.2f}" if size else "" for size in (part.loading, part.generating, part.training))
        table.add_row("[bold]all[/]" if part.name == "all" else part.name, part.where, *sizes, part.formula)
    tokens = cache_tokens(run)
    if tokens is not None and run.model is not None:
        table.add_row("cache", "engine", "", f"{tokens} tokens", "", f"{run.model.cache_bytes / 1024:g} KiB a token")
    return table


def summary(found: Sequence[Finding]) -> str:
    """Return how many findings there are of each severity: "0 errors, 1 warning, 0 notes"."""
    counts = Counter(finding.severity for finding in found)
    return ", ".join(f"{counts[each]} {each}{'s' * (counts[each] != 1)}" for each in SEVERITIES)


def as_json(run: Run, found: Sequence[Finding]) -> str:
    """Return findings and memory (bytes) as one JSON object."""
    findings, memory = (list(map(dataclasses.asdict, some)) for some in (found, parts(run)))
    return json.dumps({"trainer": run.trainer, "findings": findings, "memory": memory}, indent=2)


def plan_as_json(stages: Sequence[Stage], rates: Rates, sources: Mapping[str, str]) -> str:
    """Return a plan as one JSON object; what has no end, because an engine lacks the room, is null."""
    made = [dataclasses.asdict(stage) for stage in stages]
    for each in made:
        each["seconds"] = each["seconds"] if math.isfinite(each["seconds"]) else None
    named = {name: {"value": value, "source": sources[name]} for name, value in rates.model_dump().items()}
    return json.dumps({"stages": made, "rates": named}, indent=2)


def plan_table(stages: Sequence[Stage], gpu_memory: float) -> Table:
    """Return a plan as a table; a stage that does not fit into a card of so many bytes is said to."""
    gib = f"GiB of {gpu_memory / GIB:.0f}"
    table = _table("stage", "cards", gib, "million tokens", "tokens a second", "hours", "", right=range(1, 7))
    for stage in stages:
        ends, fits = math.isfinite(stage.seconds), stage.gib is None or stage.gib * GIB <= gpu_memory
        cells = (str(stage.cards), "" if stage.gib is None else f"{stage.gib:.1f}", f"{stage.tokens / 1e6:.2f}")
        speed = (f"{stage.tokens / (stage.seconds or 1):,.0f}", f"{stage.seconds / 3600:.2f}") if ends else ("", "")
        table.add_row(stage.name, *cells, *speed, "" if fits and ends else "[bold red]does not fit[/]")
    table.add_row("[bold]all[/]", "", "", "", "", f"{sum(stage.seconds for stage in stages) / 3600:.2f}", "")
    return table


def plan_notes(rates: Rates, sources: Mapping[str, str]) -> str:
    """Return what a plan rests on, a rate a line."""
    lines = [f"{name} = {value}  ({sources[name]})" for name, value in rates.model_dump().items()]
    return "\n".join(["By formula; no rate was ever measured on a card. --assume NAME=VALUE changes", *lines])


def checks_as_markdown() -> str:
    """Return what is checked and why, as a Markdown table."""
    text = Path(__file__).with_name("CHECKS.md").read_text(encoding="utf-8")
    return text[text.index("| check |") :]


def _table(*headings: str, right: Sequence[int] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, overflow="fold", justify="right" if place in right else "left")
    return table
