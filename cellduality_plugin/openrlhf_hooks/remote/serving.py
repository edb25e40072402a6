"""From a configuration and an endpoint to a server that listens."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator
from typing import Any

from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.openrlhf_hooks.preflight import read_tokenizer
from cellduality_plugin.openrlhf_hooks.remote.access import TOKEN_VARIABLE, find_token
from cellduality_plugin.openrlhf_hooks.remote.judge import Judge, refuse_unfit
from cellduality_plugin.policies.endpoint import EndpointPolicy
from cellduality_plugin.policies.settings import EndpointSettings


def with_endpoint(config: Config, **changes: Any) -> Config:
    """Return the configuration with an endpoint that plays the dual.

    ``changes`` are settings of the endpoint that go before those of the configuration; what is empty changes nothing.

    Raises
    ------
    CellDualityError
        If the endpoint lacks an address or a model then.
    """
    old = config.dual.endpoint.model_dump() if config.dual.endpoint else {}
    new = {**old, **{name: value for name, value in changes.items() if value}}
    for name, flag in {"urls": "--policy-url", "model": "--model"}.items():
        if not new.get(name):
            hint = f"add it to the configuration; for serve-reward, {flag} will do as well"
            raise CellDualityError(
                f"no {name} of an endpoint that plays the dual", where=f"dual.endpoint.{name}", hint=hint
            )
    try:
        endpoint = EndpointSettings(**new)
    except ValueError as error:
        raise CellDualityError(f"wrong settings: {error}", where="dual.endpoint", hint="correct them") from error
    dual = config.dual.model_copy(update={"endpoint": endpoint, "player": "frozen"})
    return config.model_copy(update={"dual": dual})


def open_judge(config: Config) -> tuple[Judge, EndpointPolicy]:
    """Return a judge over the endpoint of the configuration, and that endpoint, to be closed when it is done.

    Raises
    ------
    CellDualityError
        If the configuration names no endpoint, or asks for what a remote reward cannot do.
    """
    refuse_unfit(config)
    config = with_endpoint(config)
    endpoint = config.dual.endpoint
    assert endpoint is not None
    tokenizer = read_tokenizer(endpoint.tokenizer or endpoint.model)
    policy = EndpointPolicy(tokenizer, endpoint, config.dual)
    return Judge(config, tokenizer, policy), policy


def serve(config: Config, *, host: str, port: int, waiting: int) -> None:
    """Serve rewards until SIGINT or SIGTERM; what is under way then is answered first.

    Port 0 is any that is free; ``waiting`` rollouts may wait for their turn.

    Raises
    ------
    CellDualityError
        If the server cannot start, or others could reach it without a token.
    """
    try:
        import aiohttp  # noqa: F401  # takes a second, which no request should wait for
        import uvicorn

        from cellduality_plugin.openrlhf_hooks.remote.server import Limits, RewardServer
    except ImportError as error:
        raise CellDualityError(f"cannot import {error.name}", hint="pip install 'cellduality[serve]'") from error

    token, made = find_token(host)
    config = with_endpoint(config)
    judge, policy = open_judge(config)
    assert config.dual.endpoint is not None
    server = RewardServer(judge, policy, token, Limits(at_once=config.dual.endpoint.concurrency, waiting=waiting))
    settings = uvicorn.Config(
        server.app,
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=int(config.dual.timeout_seconds) + 5,
    )
    with _listening(host, port) as listener, _ending_well():
        shown = f"[{host}]" if ":" in host else host
        secret = token if made else f"${TOKEN_VARIABLE}"
        print(f"--reward.remote_url http://reward:{secret}@{shown}:{listener.getsockname()[1]}/", flush=True)
        uvicorn.Server(settings).run(sockets=[listener])


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=4096)
    except OSError as error:
        hint = "choose another --host or --port"
        raise CellDualityError(f"cannot listen: {error.strerror}", where=f"{host}:{port}", hint=hint) from error
    with listener:
        yield listener


@contextlib.contextmanager
def _ending_well() -> Iterator[None]:
    """Have the signals that end the server end it well: uvicorn raises them again when it is done."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
