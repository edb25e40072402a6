"""`cellduality seeds | arms`: several runs of one recipe, and what each arm of an experiment gains over seeds."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from cellduality_plugin.commands.arguments import wide_console
from cellduality_plugin.errors import CellDualityError


def seeds(
    metrics: Annotated[list[Path], typer.Argument(help="The metrics.json of each seed.")],
    before: Annotated[str, typer.Option(help="The column that the change is counted from.")] = "SFT",
    after: Annotated[str, typer.Option(help="The column that it leads to.")] = "GRPO",
) -> None:
    """Print mean and standard deviation over several runs, and the paired change from one column to another.

    Example: `cellduality seeds runs/seeds/*/test/metrics.json`
    """
    from cellduality_plugin.evaluation.compare_tables import seeds_table
    from cellduality_plugin.evaluation.report import read_metrics

    wide_console().print(seeds_table([read_metrics(path) for path in metrics], before, after))


def arms(
    metrics: Annotated[list[Path], typer.Argument(help="The metrics.json of each seed.")],
    reference: Annotated[str, typer.Option(help="The column that all arms start from.")] = "SFT",
    oracle: Annotated[str, typer.Option(help="The arm rewarded by true answers; '' if there is none.")] = "oracle",
    folder: Annotated[
        Path | None, typer.Option("--out", help="Where arms.md, arms.json, arms.csv, arms.svg and arms.png go.")
    ] = None,
) -> None:
    """Print, as Markdown, what each arm gains over seeds and which share of the oracle's gain that is.

    Example: `cellduality arms runs/table6/*/test/metrics.json --out runs/table6/arms`
    """
    from cellduality_plugin.evaluation.compare import compare
    from cellduality_plugin.evaluation.compare_tables import as_csv, as_json, headline_rows, markdown, save_plot
    from cellduality_plugin.files import write_text

    runs = read_runs(metrics)
    rows, split = compare(runs, reference, oracle), runs[0]["split"]
    if not headline_rows(rows):
        what, hint = f"{reference} has no headline metric in every run", "evaluate all seeds alike"
        raise CellDualityError(what, code="no-headline", where="metrics.json", hint=hint)
    text = markdown(rows, split)
    print(text, end="")
    if folder is not None:
        content = as_json(rows, split, [run["settings"]["seed"] for run in runs])
        write_text(folder / "arms.md", text)
        write_text(folder / "arms.json", json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        write_text(folder / "arms.csv", as_csv(rows))
        save_plot(headline_rows(rows), folder / "arms.svg", folder / "arms.png")


def read_runs(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Return what each file holds; a CellDualityError if two are of the same run: intervals would be too narrow."""
    from cellduality_plugin.evaluation.report import read_metrics

    runs = [read_metrics(path) for path in paths]
    for (first, run), (second, other) in itertools.combinations(zip(paths, runs, strict=True), 2):
        if run["columns"] == other["columns"]:
            where, hint = f"{first} and {second}", "give the metrics.json of each seed once"
            raise CellDualityError("the same run twice", code="repeated-run", where=where, hint=hint)
    return runs
