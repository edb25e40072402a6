"""The command ``cellduality``."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable

import typer

from cellduality_plugin import __version__
from cellduality_plugin.commands import data_sets, evaluating, preparing, rewarding, rounding, running, tracing, using
from cellduality_plugin.errors import CellDualityError

app = typer.Typer(
    name="cellduality",
    help="Language models that reason about single cells, trained on their own complementary duals.",
    epilog="Before a run: `cellduality doctor -- cellduality-cpu python -m openrlhf.cli.train_ppo_ray ...`",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
data_app = typer.Typer(no_args_is_help=True, help="Published sets, and cells to rows.")
model_app = typer.Typer(no_args_is_help=True, help="Small models to start from on a CPU.")
traces_app = typer.Typer(no_args_is_help=True, help="Reasoning traces of a teacher for SFT: ask, filter, count.")
app.add_typer(data_app, name="data")
app.add_typer(model_app, name="model")
app.add_typer(traces_app, name="traces")


def main() -> None:
    """Run the command line; a mistake of the user's is one line on stderr and its exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):  # what has been begun is cleared away, as after Ctrl-C
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, lambda number, frame: sys.exit(128 + number))
    if not sys.warnoptions:  # what libraries tell their developers would hide the one line; python -W shows it
        warnings.simplefilter("ignore")
    try:
        app()
    except CellDualityError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


@app.command("version")
def version() -> None:
    """Print the version."""
    print(__version__)


app.command("doctor", context_settings={"allow_interspersed_args": False})(running.doctor)
COMMANDS: dict[typer.Typer, dict[str, Callable[..., None]]] = {
    data_app: {
        "list": data_sets.data_list, "info": data_sets.data_info, "fetch": data_sets.data_fetch,
        "prepare": preparing.data_prepare,
    },
    model_app: {
        "small-llama": data_sets.model_small_llama, "smollm2": data_sets.model_smollm2, "fetch": data_sets.model_fetch,
    },
    traces_app: {
        "sample": tracing.sample_candidates, "filter": tracing.filter_candidates, "stats": tracing.show_statistics,
    },
    app: {
        "agent-path": running.agent_path, "reward-path": running.reward_path, "serve-reward": running.serve_reward,
        "audit": rewarding.audit_rewards, "configure": rewarding.configure, "replay": rewarding.replay,
        "pseudo-label": rounding.pseudo_label, "rounds": rounding.rounds,
        "evaluate": evaluating.evaluate_checkpoints, "table": evaluating.show_table, "report": evaluating.report,
        "figure2": evaluating.figure2, "seeds": evaluating.seeds, "arms": evaluating.arms, "card": evaluating.card,
        "pack": using.pack, "calibrate": using.calibrate, "annotate": using.annotate, "generate": using.generate,
        "perturb": using.perturb, "predict": using.predict,
    },
}  # fmt: skip
for group, commands in COMMANDS.items():
    for name, command in commands.items():
        group.command(name)(command)
