"""`cellduality doctor | agent-path | reward-path | serve-reward`: a run of OpenRLHF, looked at before; its reward."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option

from cellduality_plugin.commands.arguments import wide_console
from cellduality_plugin.errors import CellDualityError, needs_extra


def doctor(
    command: Annotated[list[str] | None, Argument(help="Behind --: the very command of the run.")] = None,
    as_json: Annotated[bool, Option("--json", help="One JSON object instead of tables.")] = False,
    list_checks: Annotated[bool, Option("--list", help="Print what is checked and why, as Markdown.")] = False,
    gpu_memory: Annotated[float | None, Option(help="GiB of one card; by default what is found.")] = None,
    host_memory: Annotated[float | None, Option(help="GiB of the host; by default what is found.")] = None,
    plan: Annotated[bool, Option("--plan", help="Instead: GiB, tokens a second and hours of each stage.")] = False,
    model: Annotated[str, Option(help="Of the plan: a folder with a config.json, or a name of the hub.")] = "",
    assume: Annotated[list[str] | None, Option(help="Of the plan: NAME=VALUE of a rate that it shows.")] = None,
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
        _plan([shlex.join(command)] if command else piped, gpu_memory, assume or [], model, as_json)
        return
    run = Run(command or [], Machine.look(gpu_memory, host_memory))
    found = examine(run)
    if as_json:
        print(show.as_json(run, found))
    else:
        console = wide_console(200)
        if run.flags.args is not None and run.model is not None and not run.model.is_missing:
            console.print(show.memory_table(run))
        if found:  # last, where the end of a log shows them
            console.print(show.findings_table(found))
        console.print(show.summary(found))
    if any(finding.severity == "error" for finding in found):
        raise Exit(1)


def _plan(lines: Iterable[str], gpu_memory: float | None, assumed: list[str], model: str, as_json: bool) -> None:
    from cellduality_plugin.openrlhf_hooks.doctor import show
    from cellduality_plugin.openrlhf_hooks.doctor.machine import Machine
    from cellduality_plugin.openrlhf_hooks.doctor.plan import Rates, plan

    machine = Machine.look(gpu_memory)
    if machine.gpu_memory is None:
        hint = "tell of those that are meant: --gpu-memory 48"
        raise CellDualityError("no card is found here", code="no-cards", hint=hint)
    rates, sources = Rates.of(machine.gpu_memory, assumed)
    stages = plan(lines, machine, rates, model)
    if as_json:
        print(show.plan_as_json(stages, rates, sources))
        return
    wide_console(200).print(show.plan_table(stages, machine.gpu_memory))
    print(show.plan_notes(rates, sources))


def agent_path(
    config: Annotated[Path | None, Option(help="Bind the agent to this configuration file.")] = None,
) -> None:
    """Print the file for OpenRLHF's `--train.agent_func_path`.

    Without `--config` the agent reads the configuration that CELLDUALITY_CONFIG names where Ray runs.

    Example: `--train.agent_func_path "$(cellduality agent-path --config data/cellduality.json)"`
    """
    from cellduality_plugin.agent_file import AGENT_FILE, bound_agent_file

    print(AGENT_FILE if config is None else bound_agent_file(config))


def serve_reward(
    config: Annotated[Path, Option(help="The configuration file of the prepared data.")],
    policy_url: Annotated[list[str] | None, Option(help="Of the server that plays the dual; several share.")] = None,
    model: Annotated[str, Option(help="The model's name there.")] = "",
    tokenizer: Annotated[str, Option(help="Folder or hub name; by default the model's name.")] = "",
    key_variable: Annotated[str, Option(help="The environment variable with the endpoint's key.")] = "",
    host: Annotated[str, Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="0 is any that is free.")] = 5000,
    waiting: Annotated[int, Option(min=0, help="Rollouts that may wait; beyond that clients get 429.")] = 8192,
) -> None:
    """Serve the dual reward to OpenRLHF over HTTP; a frozen policy behind an endpoint plays the dual.

    Prints the flag that the trainer needs. The token is that of CELLDUALITY_TOKEN, or made at the start. `/healthz`
    says whether the policy answers, `/metrics` what was done.

    Example: `cellduality serve-reward --config data/cellduality.json --policy-url http://127.0.0.1:8000/v1
    --model runs/cpu/sft`
    """
    from cellduality_plugin.config import Config
    from cellduality_plugin.openrlhf_hooks.remote.judge import with_endpoint

    with needs_extra("serve"):
        from cellduality_plugin.openrlhf_hooks.remote.server import serve

    named = {"model": model, "tokenizer": tokenizer, "key_variable": key_variable}
    settings = with_endpoint(Config.load(config), urls=tuple(policy_url or ()), **named)
    serve(settings, host=host, port=port, waiting=waiting)


def reward_path(
    config: Annotated[Path | None, Option(help="Bind the function to this configuration file.")] = None,
    server: Annotated[list[str] | None, Option(help="Of a reward server, http://host:port/; several share.")] = None,
) -> None:
    """Print the file for OpenRLHF's `--reward.remote_url`: the dual reward of the endpoint in the configuration.

    Without `--config` it reads the configuration that CELLDUALITY_CONFIG names where Ray runs. With `--server` the
    function asks reward servers instead (`cellduality serve-reward`; their token is that of CELLDUALITY_TOKEN): the
    least busy one, another if that fails, and it waits for one that is started again.

    Example: `--reward.remote_url "$(cellduality reward-path --config data/cellduality.json)"`
    """
    from cellduality_plugin.agent_file import REWARD_FILE, bound_reward_file

    if server and config is None:
        what, where = "no place for the file that asks the servers", "reward-path --server"
        hint = "pass --config, too: it is written beside that file"
        raise CellDualityError(what, code="flag-missing", where=where, hint=hint)
    if config is None:
        print(REWARD_FILE)
    else:
        print(bound_reward_file(config, server or ()))
