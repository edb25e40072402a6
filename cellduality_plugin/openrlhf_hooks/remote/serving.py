"""From a configuration and an endpoint to a server that listens."""

from __future__ import annotations

import signal
import socket
from typing import Any

from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError, needs_extra
from cellduality_plugin.hub import read_tokenizer
from cellduality_plugin.openrlhf_hooks.remote.judge import Judge
from cellduality_plugin.openrlhf_hooks.remote.protocol import TOKEN_VARIABLE, find_token
from cellduality_plugin.policies.endpoint import EndpointPolicy
from cellduality_plugin.policies.settings import EndpointSettings


def with_endpoint(config: Config, **changes: Any) -> Config:
    """Return the configuration with its endpoint, changed by those ``changes`` that are not empty, as the dual."""
    old = config.dual.endpoint.model_dump() if config.dual.endpoint else {}
    new = {**old, **{name: value for name, value in changes.items() if value}}
    for name, flag in {"urls": "--policy-url", "model": "--model"}.items():
        if not new.get(name):
            what, hint = f"no {name} of an endpoint that plays the dual", "add it to the configuration"
            hint = f"{hint}; for serve-reward, {flag} will do as well"
            raise CellDualityError(what, code="no-endpoint", where=f"dual.endpoint.{name}", hint=hint)
    endpoint = EndpointSettings.read(new, where="dual.endpoint")
    dual = config.dual.model_copy(update={"endpoint": endpoint, "player": "frozen"})
    return config.model_copy(update={"dual": dual})


def open_judge(config: Config) -> tuple[Judge, EndpointPolicy]:
    """Return (a judge, the endpoint of the configuration that it asks, to be closed); there has to be one."""
    config = with_endpoint(config)
    endpoint = config.dual.endpoint
    assert endpoint is not None
    tokenizer = read_tokenizer(endpoint.tokenizer or endpoint.model)
    policy = EndpointPolicy(tokenizer, endpoint, config.dual)
    return Judge(config, tokenizer, policy), policy


def serve(config: Config, *, host: str, port: int, waiting: int) -> None:
    """Serve rewards by the endpoint of ``config`` until SIGINT or SIGTERM; what is under way then is answered first.

    Port 0 is any that is free; ``waiting`` rollouts may wait for their turn. A CellDualityError is raised if the server
    cannot start, or others could reach it without a token.
    """
    with needs_extra("serve"):
        import aiohttp  # noqa: F401  # takes a second, which no request should wait for
        import uvicorn

        from cellduality_plugin.openrlhf_hooks.remote.server import Limits, RewardServer

    token, made = find_token(host)
    judge, policy = open_judge(config)
    assert config.dual.endpoint is not None, "open_judge refuses a configuration without"
    limits = Limits(at_once=config.dual.endpoint.concurrency, waiting=waiting)
    settings = uvicorn.Config(
        RewardServer(judge, policy, token, limits).app,
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=int(config.dual.timeout_seconds) + 5,
    )
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=4096)
    except OSError as error:
        what, hint = f"cannot listen: {error.strerror}", "choose another --host or --port"
        raise CellDualityError(what, code="cannot-listen", where=f"{host}:{port}", hint=hint) from error
    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises them again when it has ended
        signal.signal(number, lambda *_: None)
    with listener:
        shown = f"[{host}]" if ":" in host else host
        secret = token if made else f"${TOKEN_VARIABLE}"
        print(f"--reward.remote_url http://reward:{secret}@{shown}:{listener.getsockname()[1]}/", flush=True)
        uvicorn.Server(settings).run(sockets=[listener])
