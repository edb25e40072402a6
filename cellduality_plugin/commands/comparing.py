"""`cellduality arms`: what each arm of an experiment gains over seeds, and how much of the oracle's gain that is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from cellduality_plugin.errors import CellDualityError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("arms")(arms)


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
    from cellduality_plugin.evaluation.arms.comparing import compare
    from cellduality_plugin.evaluation.arms.tables import headline_rows, markdown

    runs = read_runs(metrics)
    rows = compare(runs, reference, oracle)
    if not headline_rows(rows):
        raise CellDualityError(
            f"{reference} has no headline metric in every run", where="metrics.json", mend="evaluate all seeds alike"
        )
    text = markdown(rows, runs[0]["split"])
    print(text, end="")
    if folder is not None:
        _write(folder, rows, text, runs)


def _write(folder: Path, rows: Sequence[Any], text: str, runs: Sequence[Mapping[str, Any]]) -> None:
    from cellduality_plugin.evaluation.arms.plot import save_plot
    from cellduality_plugin.evaluation.arms.tables import as_csv, as_json, headline_rows
    from cellduality_plugin.files import write_text

    seeds = [run["settings"]["seed"] for run in runs]
    write_text(folder / "arms.md", text)
    told = as_json(rows, runs[0]["split"], seeds)
    write_text(folder / "arms.json", json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    write_text(folder / "arms.csv", as_csv(rows))
    save_plot(headline_rows(rows), folder / "arms.svg", folder / "arms.png")


def read_runs(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Return what each file holds.

    Raises
    ------
    CellDualityError
        If a file cannot be read, or two are of the same run: a seed counted twice would make intervals too narrow.
    """
    from cellduality_plugin.evaluation.report import read_metrics

    runs = [read_metrics(path) for path in paths]
    for place, run in enumerate(runs):
        for other in range(place):
            if run["columns"] == runs[other]["columns"]:
                mend = "give the metrics.json of each seed once"
                raise CellDualityError("the same run twice", where=f"{paths[other]} and {paths[place]}", mend=mend)
    return runs
