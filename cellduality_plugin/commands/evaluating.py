"""`cellduality evaluate | table | report | card | figure2 | seeds | arms`: from checkpoints to numbers and pages."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_args

from rich.console import Console
from typer import Argument, Option

from cellduality_plugin.commands import arguments
from cellduality_plugin.commands.arguments import folders, refuse_unknown
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import write_json, write_text

Metrics: TypeAlias = Annotated[list[Path], Argument(help="The metrics.json of each seed.")]

out = Console()


def evaluate_checkpoints(
    model: Annotated[list[str], Option(help="NAME=FOLDER of a checkpoint, or its hub name; once for each column.")],
    data: arguments.Data,
    folder: Annotated[Path, Option("--out", help="Where predictions and metrics.json go.")],
    split: Annotated[str, Option(help="validation while choosing settings; test once, last.")] = "test",
    decode: Annotated[
        str,
        Option(help="both: labels greedily and drawn, cells drawn; headline: labels greedily; greedy, sampled: all."),
    ] = "both",
    samples: Annotated[int, Option(help="Answers drawn to each row.")] = 4,
    max_len: arguments.MaxLen = 2048,
    max_new_tokens: arguments.MaxNewTokens = 1024,
    seed: arguments.Seed = 42,
    batch: Annotated[int, Option(help="Questions that are asked together, and then kept.")] = 256,
    tensor_parallel: arguments.TensorParallel = 1,
    together: Annotated[bool, Option("--together", help="All checkpoints at once: where each has a core.")] = False,
    anndata: Annotated[bool, Option(help="Write the generated cells as predictions/NAME.h5ad, too.")] = True,
    real_cells: Annotated[bool, Option(help="Put the real cells of the split beside them.")] = False,
    embedding: Annotated[str, Option(help="Space of distances: pca, a folder of scGPT, or module:Class.")] = "pca",
    metric: Annotated[list[str] | None, Option(help="One of your own: module:function or file.py:function.")] = None,
) -> None:
    """Answer held-out rows with each checkpoint, primal and dual, and measure, beside baselines.

    An evaluation that was stopped goes on where it was when the same command is given again.

    Example: `cellduality evaluate --model SFT=sft --model GRPO=grpo --data data --split validation --out validation`
    """
    from cellduality_plugin.config import Config
    from cellduality_plugin.evaluation.evaluate import Split, evaluate, predict_at_once
    from cellduality_plugin.evaluation.predictions import Decode, PredictionSettings
    from cellduality_plugin.evaluation.sections import EvaluationSettings
    from cellduality_plugin.evaluation.tables import table
    from cellduality_plugin.hub import local_model
    from cellduality_plugin.policies.offline import EngineSettings

    refuse_unknown(("--split", split, get_args(Split)), ("--decode", decode, get_args(Decode)))
    for flag, number in (("--samples", samples), ("--batch", batch)):
        if number < 1:
            raise CellDualityError(f"{number} is none", code="wrong-value", where=flag, hint="give 1 or more")
    engine = EngineSettings(max_len, max_new_tokens, tensor_parallel_size=tensor_parallel)
    asking = PredictionSettings(samples, seed=seed, decode=decode, batch=batch, engine=engine)  # type: ignore[arg-type]
    settings = EvaluationSettings(
        asking, embedding=embedding, seed=seed, anndata=anndata, real_cells=real_cells, metrics=tuple(metric or ())
    )
    models = {name: local_model(folder) for name, folder in folders(model, "--model").items()}
    tasks = Config.load(data / "cellduality.json").load_tasks()
    if together and len(models) > 1:
        predict_at_once(models, data, split, folder, settings)  # type: ignore[arg-type]
    found = evaluate(models, data, split, folder, settings, tasks=tasks, command=sys.argv)  # type: ignore[arg-type]
    out.print(table(found))


def show_table(metrics: Annotated[Path, Argument(help="A metrics.json.")]) -> None:
    """Print the table of an evaluation, and what was found in a few words.

    Example: `cellduality table runs/cpu/test/metrics.json`
    """
    from cellduality_plugin.evaluation.report import read_metrics
    from cellduality_plugin.evaluation.tables import compared, headlines, sentences, table

    found = read_metrics(metrics)
    out.print(table(found))
    if pair := compared(found):
        out.print("\n".join(sentences(headlines(found), pair)), style="bold")


def report(
    evaluation: Annotated[Path, Option(help="The folder that `evaluate` wrote.")],
    page: Annotated[Path, Option("--out", help="The page to write.")],
    curves: Annotated[list[str] | None, Option(help="NAME=FOLDER of TensorBoard events, or a training log.")] = None,
    audit: Annotated[Path | None, Option(help="An audit.json; left out where it is not there.")] = None,
    data: Annotated[Path | None, Option(help="The prepared folder: questions, labels, how it was made.")] = None,
    commands: Annotated[Path | None, Option(help="A folder with STAGE.command files: logs/ of the recipes.")] = None,
    title: Annotated[str, Option(help="The heading.")] = "CellDuality",
    window: Annotated[int, Option(min=1, help="Steps of the moving average of rewards by task.")] = 5,
) -> None:
    """Write one self-contained HTML page: summary, tables, curves, cells, labels, audit, rollouts, failures, commands.

    Example: `cellduality report --evaluation runs/cpu/test --data runs/cpu/data --out report.html --curves
    GRPO=runs/cpu/tensorboard/grpo`
    """
    from cellduality_plugin.config import Config
    from cellduality_plugin.evaluation.report import write_report
    from cellduality_plugin.tasks import TASKS

    sources = folders(curves, "--curves")
    tasks = TASKS if data is None else Config.load(data / "cellduality.json").load_tasks()
    print(write_report(evaluation, page, sources, title, audit, data, tasks, commands, window))


def card(
    folder: Annotated[Path, Argument(help="The folder of a trained model, as the recipes leave it.")],
    metrics: Annotated[Path | None, Option(help="metrics.json of an evaluation of this very model.")] = None,
    audit: Annotated[Path | None, Option(help="audit.json of the rewards it was trained with.")] = None,
    licence: Annotated[str, Option(help="Of the model, as the hub writes it: apache-2.0, cc-by-4.0, other.")] = "other",
) -> None:
    """Write the model card, README.md: what it was trained on, data and their licences, how many labels, results.

    Example: `cellduality card runs/cpu/grpo --metrics runs/cpu/test/metrics.json --audit runs/cpu/audit/audit.json`
    """
    from cellduality_plugin.inference.card import write_card

    print(write_card(folder, metrics, audit, licence))


def figure2(
    curves: Annotated[list[Path], Option(help="A folder of TensorBoard events, or a training log; once a seed.")],
    image: Annotated[Path, Option("--out", help="The figure: .svg, .png or .pdf.")],
    window: Annotated[int, Option(min=1, help="Steps of the moving average.")] = 5,
) -> None:
    """Draw rewards by task family, with the ground truth on the same axis; of several runs mean and deviation.

    Ground truth is there where rows hold gold: `cellduality data prepare --gold-for-monitoring`.

    Example: `cellduality figure2 --curves runs/42/tensorboard/grpo --curves runs/43/tensorboard/grpo --out figure2.svg`
    """
    from cellduality_plugin.evaluation.curves import write_figure

    panels = write_figure(curves, image, window)
    gold = sum(panel.truth is not None for panel in panels)
    print(f"{image}  ({len(panels)} tasks, {gold} with ground truth, {panels[0].reward.runs} runs)")


def seeds(
    metrics: Metrics,
    before: Annotated[str, Option(help="The column that the change is counted from.")] = "SFT",
    after: Annotated[str, Option(help="The column that it leads to.")] = "GRPO",
) -> None:
    """Print mean and standard deviation over several runs, and the paired change from one column to another.

    Example: `cellduality seeds runs/seeds/*/test/metrics.json`
    """
    from cellduality_plugin.evaluation.compare_tables import seeds_table

    print(seeds_table(read_runs(metrics), before, after))


def arms(
    metrics: Metrics,
    reference: Annotated[str, Option(help="The column that all arms start from.")] = "SFT",
    oracle: Annotated[str, Option(help="The arm rewarded by true answers; '' if there is none.")] = "oracle",
    folder: Annotated[Path | None, Option("--out", help="Where arms.md, .json, .csv, .svg and .png go.")] = None,
) -> None:
    """Print, as Markdown, what each arm gains over seeds and which share of the oracle's gain that is.

    Example: `cellduality arms runs/table6/*/test/metrics.json --out runs/table6/arms`
    """
    from cellduality_plugin.evaluation.compare import compare
    from cellduality_plugin.evaluation.compare_tables import as_csv, as_json, as_markdown, headline_rows, save_plot

    runs = read_runs(metrics)
    rows, split = compare(runs, reference, oracle), runs[0]["split"]
    if not headline_rows(rows):
        what, hint = f"{reference} has no headline metric in every run", "evaluate all seeds alike"
        raise CellDualityError(what, code="no-headline", where="metrics.json", hint=hint)
    text = as_markdown(rows, split)
    print(text, end="")
    if folder is not None:
        content = as_json(rows, split, [run["settings"]["seed"] for run in runs])
        write_text(folder / "arms.md", text)
        write_json(folder / "arms.json", content)
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
