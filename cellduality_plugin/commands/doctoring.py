"""`cellduality doctor`: finds in seconds what would fail, or mislead, minutes into a run."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console


def doctor(
    command: Annotated[
        list[str] | None, typer.Argument(help="Behind --: the very command of the run, launchers and all.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
    list_checks: Annotated[bool, typer.Option("--list", help="Print what is checked and why, as Markdown.")] = False,
    gpu_memory: Annotated[float | None, typer.Option(help="GiB of one card; by default what is found.")] = None,
    host_memory: Annotated[float | None, typer.Option(help="GiB of the host; by default what is found.")] = None,
) -> None:
    """Examine the command of a run: its flags, configuration, rows and model. Exit code 1 if it would fail.

    Flags are read by OpenRLHF's own parser; nothing is started, neither Ray nor a model.

    Examples:

    `cellduality doctor -- python -m openrlhf.cli.train_ppo_ray --actor.model_name_or_path sft ...`

    `cellduality doctor -- cellduality-cpu torchrun --nproc-per-node 2 -m openrlhf.cli.train_sft ...`

    `cellduality doctor --gpu-memory 48 --json -- ray job submit --runtime-env-json '{...}' -- python -m ...`
    """
    from cellduality_plugin.openrlhf_hooks.doctor import show
    from cellduality_plugin.openrlhf_hooks.doctor.checks import examine
    from cellduality_plugin.openrlhf_hooks.doctor.command import Command
    from cellduality_plugin.openrlhf_hooks.doctor.machine import Machine
    from cellduality_plugin.openrlhf_hooks.doctor.run import Run

    if list_checks:
        print(show.checks_as_markdown(), end="")
        return
    run = Run.of(Command.read(command or []), Machine.look(gpu_memory, host_memory))
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
