"""`cellduality doctor`: finds in seconds what would fail, or mislead, minutes into a run; and what it would take."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from cellduality_plugin.errors import CellDualityError

if TYPE_CHECKING:
    from cellduality_plugin.openrlhf_hooks.doctor.machine import Machine


def doctor(
    command: Annotated[
        list[str] | None, typer.Argument(help="Behind --: the very command of the run, launchers and all.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
    list_checks: Annotated[bool, typer.Option("--list", help="Print what is checked and why, as Markdown.")] = False,
    gpu_memory: Annotated[float | None, typer.Option(help="GiB of one card; by default what is found.")] = None,
    host_memory: Annotated[float | None, typer.Option(help="GiB of the host; by default what is found.")] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Instead: GiB, tokens a second and hours of each stage, estimated.")
    ] = False,
    model: Annotated[str, typer.Option(help="Of the plan: a folder with a config.json, or a name of the hub.")] = "",
    assume: Annotated[
        list[str] | None, typer.Option(help="Of the plan: NAME=VALUE of a rate that it shows; several times.")
    ] = None,
) -> None:
    """Examine the command of a run: its flags, configuration, rows and model. Exit code 1 if it would fail.

    Flags are read by OpenRLHF's own parser; nothing is started, neither Ray nor a model. A plan needs prepared rows; it
    is of all commands that a recipe prints with DRY_RUN=1, unless one is given.

    Examples:

    `cellduality doctor -- python -m openrlhf.cli.train_ppo_ray --actor.model_name_or_path sft ...`

    `cellduality doctor -- cellduality-cpu torchrun --nproc-per-node 2 -m openrlhf.cli.train_sft ...`

    `cellduality doctor --gpu-memory 48 --json -- ray job submit --runtime-env-json '{...}' -- python -m ...`

    `PROFILE=gpu1 DRY_RUN=1 bash recipes/grpo_duality.sh | cellduality doctor --plan --gpu-memory 48`

    `cellduality doctor --plan --assume teraflops=989 --assume compute_share=0.4 -- python -m ...`
    """
    from cellduality_plugin.openrlhf_hooks.doctor import show
    from cellduality_plugin.openrlhf_hooks.doctor.checks import examine
    from cellduality_plugin.openrlhf_hooks.doctor.machine import Machine
    from cellduality_plugin.openrlhf_hooks.doctor.run import Run

    if list_checks:
        print(show.checks_as_markdown(), end="")
        return
    if plan:
        piped: Iterable[str] = () if sys.stdin.isatty() else sys.stdin
        lines = [shlex.join(command)] if command else piped
        _plan(lines, Machine.look(gpu_memory), assume or [], model, as_json)
        return
    run = Run(command or [], Machine.look(gpu_memory, host_memory))
    found = examine(run)
    if as_json:
        print(show.as_json(run, found))
    else:
        console = Console(width=None if Console().is_terminal else 200)
        if run.flags.args is not None and run.model is not None and not run.model.is_missing:
            console.print(show.memory_table(run))
        if found:  # last, where the end of a log shows them
            console.print(show.findings_table(found))
        console.print(show.summary(found))
    if any(finding.severity == "error" for finding in found):
        raise typer.Exit(1)


def _plan(lines: Iterable[str], machine: Machine, assumed: list[str], model: str, as_json: bool) -> None:
    from cellduality_plugin.openrlhf_hooks.doctor import show
    from cellduality_plugin.openrlhf_hooks.doctor.plan import Rates, plan

    if machine.gpu_memory is None:
        raise CellDualityError(
            "no card is found here", code="no-cards", hint="tell of those that are meant: --gpu-memory 48"
        )
    rates, sources = Rates.of(machine.gpu_memory, assumed)
    stages = plan(lines, machine, rates, model)
    if as_json:
        print(show.plan_as_json(stages, rates, sources))
        return
    Console(width=None if Console().is_terminal else 200).print(show.plan_table(stages, machine.gpu_memory))
    print(show.plan_notes(rates, sources))
