"""`cellduality evaluate | table | report | figure2`: from checkpoints to numbers, a page and a figure."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, get_args

import typer
from rich.console import Console

from cellduality_plugin.commands.arguments import folders, refuse_unknown
from cellduality_plugin.commands.options import MaxLen, MaxNewTokens, TensorParallel
from cellduality_plugin.errors import CellDualityError

out = Console()


def evaluate_checkpoints(
    model: Annotated[
        list[str], typer.Option(help="NAME=FOLDER of a checkpoint, or its name of the hub; once for each column.")
    ],
    data: Annotated[Path, typer.Option(help="The prepared folder.")],
    folder: Annotated[Path, typer.Option("--out", help="Where predictions and metrics.json go.")],
    split: Annotated[str, typer.Option(help="validation while choosing settings; test once, last.")] = "test",
    decode: Annotated[
        str,
        typer.Option(
            help="both: labels greedily and drawn, cells drawn; headline: labels greedily; greedy or sampled: all."
        ),
    ] = "both",
    samples: Annotated[int, typer.Option(help="Answers drawn to each row.")] = 4,
    max_len: MaxLen = 2048,
    max_new_tokens: MaxNewTokens = 1024,
    seed: Annotated[int, typer.Option(help="Of every sampled answer.")] = 42,
    batch: Annotated[
        int, typer.Option(help="Questions asked together; what is answered is kept after each batch.")
    ] = 256,
    tensor_parallel: TensorParallel = 1,
    together: Annotated[
        bool, typer.Option("--together", help="All checkpoints at the same time: where each has a core of its own.")
    ] = False,
    anndata: Annotated[bool, typer.Option(help="Write the generated cells as predictions/NAME.h5ad, too.")] = True,
    real_cells: Annotated[bool, typer.Option(help="Put the real cells of the split beside them.")] = False,
    embedding: Annotated[
        str, typer.Option(help="Space of distances: pca, the folder of an scGPT checkpoint, or module:Class.")
    ] = "pca",
    metric: Annotated[
        list[str] | None, typer.Option(help="A metric of your own: module:function or file.py:function.")
    ] = None,
) -> None:
    """Answer held-out rows with each checkpoint, primal and dual, and measure, beside baselines.

    An evaluation that was stopped goes on where it was when the same command is given again.

    Example: `cellduality evaluate --model SFT=sft --model GRPO=grpo --data data --split validation --out validation`
    """
    from cellduality_plugin.config import Config
    from cellduality_plugin.evaluation.evaluate import EvaluationSettings, Split, evaluate, predict_at_once, table
    from cellduality_plugin.evaluation.predictions import Decode, PredictionSettings
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


def show_table(metrics: Annotated[Path, typer.Argument(help="A metrics.json.")]) -> None:
    """Print the table of an evaluation, and what was found in a few words.

    Example: `cellduality table runs/cpu/test/metrics.json`
    """
    from cellduality_plugin.evaluation.report import read_metrics
    from cellduality_plugin.evaluation.tables import compared, headlines, sentences, table

    found = read_metrics(metrics)
    out.print(table(found))
    if pair := compared(found):
        out.print("\n".join(sentences(headlines(found, pair), pair)), style="bold")


def report(
    evaluation: Annotated[Path, typer.Option(help="The folder that `evaluate` wrote.")],
    page: Annotated[Path, typer.Option("--out", help="The page to write.")],
    curves: Annotated[
        list[str] | None, typer.Option(help="NAME=FOLDER of TensorBoard events, or a training log.")
    ] = None,
    audit: Annotated[Path | None, typer.Option(help="An audit.json; left out where it is not there.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="The prepared folder: for the questions, held-out labels, and how it was made.")
    ] = None,
    commands: Annotated[
        Path | None, typer.Option(help="A folder with STAGE.command files, as the recipes leave them in logs/.")
    ] = None,
    title: Annotated[str, typer.Option(help="The heading.")] = "CellDuality",
    window: Annotated[int, typer.Option(min=1, help="Steps of the moving average of rewards by task.")] = 5,
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


def figure2(
    curves: Annotated[
        list[Path], typer.Option(help="A folder of TensorBoard events, or a training log; once for each seed.")
    ],
    image: Annotated[Path, typer.Option("--out", help="The figure: .svg, .png or .pdf.")],
    window: Annotated[int, typer.Option(min=1, help="Steps of the moving average.")] = 5,
) -> None:
    """Draw rewards by task family, with the ground truth on the same axis; of several runs mean and deviation.

    Ground truth is there where rows hold gold: `cellduality data prepare --gold-for-monitoring`.

    Example: `cellduality figure2 --curves runs/42/tensorboard/grpo --curves runs/43/tensorboard/grpo --out figure2.svg`
    """
    from cellduality_plugin.evaluation.curves import write_figure

    panels = write_figure(curves, image, window)
    gold = sum(panel.truth is not None for panel in panels)
    print(f"{image}  ({len(panels)} tasks, {gold} with ground truth, {panels[0].reward.runs} runs)")
