"""`cellduality serve-reward` and `cellduality reward-path`: the dual reward without the agent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellduality_plugin.errors import CellDualityError


def serve_reward(
    config: Annotated[Path, typer.Option(help="The configuration file of the prepared data.")],
    policy_url: Annotated[
        list[str] | None, typer.Option(help="Of the server that plays the dual, up to /v1; several share the load.")
    ] = None,
    model: Annotated[str, typer.Option(help="The model's name there.")] = "",
    tokenizer: Annotated[str, typer.Option(help="Folder or hub name; by default the model's name.")] = "",
    key_variable: Annotated[str, typer.Option(help="The environment variable with the endpoint's key.")] = "",
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 is any that is free.")] = 5000,
    waiting: Annotated[int, typer.Option(min=0, help="Rollouts that may wait; beyond that clients get 429.")] = 8192,
) -> None:
    """Serve the dual reward to OpenRLHF over HTTP; a frozen policy behind an endpoint plays the dual.

    Prints the flag that the trainer needs. The token is that of CELLDUALITY_TOKEN, or made at the start. `/healthz`
    says whether the policy answers, `/metrics` what was done.

    Example: `cellduality serve-reward --config data/cellduality.json --policy-url http://127.0.0.1:8000/v1
    --model runs/cpu/sft`
    """
    from cellduality_plugin.config import Config
    from cellduality_plugin.openrlhf_hooks.remote import serving

    named = {"model": model, "tokenizer": tokenizer, "key_variable": key_variable}
    settings = serving.with_endpoint(Config.load(config), urls=tuple(policy_url or ()), **named)
    serving.serve(settings, host=host, port=port, waiting=waiting)


def reward_path(
    config: Annotated[Path | None, typer.Option(help="Bind the function to this configuration file.")] = None,
    server: Annotated[
        list[str] | None, typer.Option(help="Of a reward server, http://host:port/; several share the load.")
    ] = None,
) -> None:
    """Print the file for OpenRLHF's `--reward.remote_url`: the dual reward of the endpoint in the configuration.

    Without `--config` it reads the configuration that CELLDUALITY_CONFIG names where Ray runs. With `--server` the
    function asks reward servers instead (`cellduality serve-reward`; their token is that of CELLDUALITY_TOKEN): the
    least busy one, another if that fails, and it waits for one that is started again.

    Example: `--reward.remote_url "$(cellduality reward-path --config data/cellduality.json)"`
    """
    from cellduality_plugin.agent_file import bound_client_file, bound_reward_file, packaged_reward_file

    if server and config is None:
        what, where = "no place for the file that asks the servers", "reward-path --server"
        hint = "pass --config, too: it is written beside that file"
        raise CellDualityError(what, code="flag-missing", where=where, hint=hint)
    if config is None:
        print(packaged_reward_file())
    else:
        print(bound_client_file(config, server) if server else bound_reward_file(config))
