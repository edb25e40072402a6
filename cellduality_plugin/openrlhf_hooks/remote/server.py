"""A reward server over HTTP: who may ask, how much at once, and what is counted."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import AsyncIterator

import aiohttp  # noqa: F401  # takes a second, which no request should wait for
import uvicorn
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.openrlhf_hooks.remote import protocol
from cellduality_plugin.openrlhf_hooks.remote.judge import Judge, Rollout, open_judge
from cellduality_plugin.policies.base import PolicyError
from cellduality_plugin.policies.endpoint import EndpointPolicy
from cellduality_plugin.scoring import Score

_HEALTH_HOLDS = 2.0  # seconds for which the policy's state is taken as known: requests without a token cause no load
_BODY_BYTES, _BODY_SECONDS = 4 * 2**20, 30.0  # of a body at the most, and that it may take to come
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 180.0)


class Metrics:
    """What one server counts, under the names that ``/metrics`` gives Prometheus."""

    def __init__(self) -> None:
        self.registry = mine = CollectorRegistry()
        name = "cellduality_{}".format
        self.requests = Counter(name("requests"), "Requests for rewards, by status code.", ["code"], registry=mine)
        self.rewards = Counter(name("rewards"), "Rollouts judged.", registry=mine)
        self.dual_requests = Counter(name("dual_requests"), "Calls that the dual took.", registry=mine)
        self.failures = Counter(name("failures"), "Rollouts that earned nothing, by cause.", ["cause"], registry=mine)
        self.in_flight = Gauge(name("in_flight"), "Rollouts being judged.", registry=mine)
        self.queue = Gauge(name("queue"), "Rollouts that wait to be judged.", registry=mine)
        help_text = "From a request to its reply."
        self.seconds = Histogram(name("request_seconds"), help_text, buckets=_SECONDS, registry=mine)


class RewardServer:
    """Speaks OpenRLHF's remote-reward protocol to clients with the ``token``; closes ``policy`` in the end.

    At most ``at_once`` rollouts are judged at a time, when the clock of their duals starts; ``waiting`` more may wait.
    A whole batch has to find room: OpenRLHF sends it at once, and gives up after five refusals, a second apart.
    """

    def __init__(
        self, judge: Judge, policy: EndpointPolicy, token: str, *, at_once: int = 64, waiting: int = 8192
    ) -> None:
        self.metrics = Metrics()
        self._judge, self._policy, self._token, self._room = judge, policy, token, at_once + waiting
        self._turns = asyncio.Semaphore(at_once)
        self._taken = self._running = 0  # rollouts that are judged or wait; those that are judged
        self.metrics.in_flight.set_function(lambda: self._running)
        self.metrics.queue.set_function(lambda: self._taken - self._running)
        self._health, self._looked, self._looking = "", -_HEALTH_HOLDS, asyncio.Lock()
        routes = [
            Route("/", self._rewards, methods=["POST"]),
            Route("/healthz", self._healthz, methods=["GET"]),
            Route("/metrics", self._metrics, methods=["GET"]),
        ]
        self.app = Starlette(routes=routes, lifespan=self._lifespan, exception_handlers={HTTPException: _refusal})

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await self._policy.close()

    async def _rewards(self, request: Request) -> Response:
        started, code = time.monotonic(), 500  # an error of ours is one, whatever it is; its traceback is logged
        try:
            response = JSONResponse(protocol.reply(await self._judged(await self._rollouts(request))))
            code = 200
            return response
        except HTTPException as refusal:
            code = refusal.status_code
            raise
        except ClientDisconnect:
            code = 499
            return Response(status_code=400)  # the client is gone
        finally:
            self.metrics.requests.labels(str(code)).inc()
            self.metrics.seconds.observe(time.monotonic() - started)

    async def _rollouts(self, request: Request) -> list[Rollout]:
        self._check_token(request)
        self._check_room(1)
        rollouts: list[Rollout] = []
        try:
            items = protocol.read_request(await self._body(request))
            self._check_room(len(items))
            for item in items:
                rollouts.append(self._judge.rollout(*item))  # their number says which is wrong
        except protocol.Malformed as error:
            raise HTTPException(400, str(error)) from error
        except CellDualityError as error:
            raise HTTPException(400, f"{error.where}[{len(rollouts)}]: {error.what}") from error
        return rollouts

    async def _judged(self, rollouts: list[Rollout]) -> list[Score]:
        self._taken += len(rollouts)
        try:
            # All of them to their ends, so that what is counted as taken is what is under way.
            scores = await asyncio.gather(*map(self._score, rollouts), return_exceptions=True)
        finally:
            self._taken -= len(rollouts)
        for score in scores:
            if isinstance(score, BaseException):
                raise score
        return [score for score in scores if isinstance(score, Score)]

    async def _score(self, rollout: Rollout) -> Score:
        async with self._turns:
            self._running += 1
            try:
                score = await self._judge.score(rollout)
            finally:
                self._running -= 1
        self.metrics.rewards.inc()
        self.metrics.dual_requests.inc(score.logs["dual_requests"])
        if score.failure:
            self.metrics.failures.labels(score.failure).inc()
        return score

    def _check_token(self, request: Request) -> None:
        if not protocol.allowed(request.headers.get("authorization", ""), self._token):
            raise HTTPException(401, "the token is missing or wrong", {"WWW-Authenticate": "Bearer"})

    def _check_room(self, items: int) -> None:
        if self._taken + items > self._room:
            raise HTTPException(429, f"{self._taken} rollouts are waiting already", {"Retry-After": "1"})

    async def _body(self, request: Request) -> bytes:
        body, close = bytearray(), {"Connection": "close"}
        too_long = HTTPException(413, f"the body is longer than {_BODY_BYTES} bytes", close)
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > _BODY_BYTES:
            raise too_long

        async def read() -> bytes:
            async for part in request.stream():
                body.extend(part)
                if len(body) > _BODY_BYTES:
                    raise too_long
            return bytes(body)

        try:
            return await asyncio.wait_for(read(), _BODY_SECONDS)
        except asyncio.TimeoutError:
            raise HTTPException(408, "the body did not come", close) from None

    async def _healthz(self, request: Request) -> Response:
        async with self._looking:
            if time.monotonic() - self._looked > _HEALTH_HOLDS:
                try:
                    await asyncio.wait_for(self._policy.check(), 10)
                    self._health = ""
                except asyncio.TimeoutError:
                    self._health = "timeout"
                except PolicyError as error:
                    self._health = error.cause
                self._looked = time.monotonic()
        return JSONResponse({"policy": self._health or "answers"}, 503 if self._health else 200)

    async def _metrics(self, request: Request) -> Response:
        self._check_token(request)
        return Response(generate_latest(self.metrics.registry), media_type="text/plain; version=0.0.4")


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def serve(config: Config, *, host: str, port: int, waiting: int) -> None:
    """Serve rewards by the endpoint of ``config`` until SIGINT or SIGTERM; what is under way then is answered first.

    Port 0 is any that is free; ``waiting`` rollouts may wait for their turn. A CellDualityError is raised if the server
    cannot start, or others could reach it without a token.
    """
    token, made = protocol.find_token(host)
    judge, policy = open_judge(config)
    assert config.dual.endpoint is not None, "open_judge refuses a configuration without"
    server = RewardServer(judge, policy, token, at_once=config.dual.endpoint.concurrency, waiting=waiting)
    settings = uvicorn.Config(
        server.app,
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
        secret = token if made else f"${protocol.TOKEN_VARIABLE}"
        print(f"--reward.remote_url http://reward:{secret}@{shown}:{listener.getsockname()[1]}/", flush=True)
        uvicorn.Server(settings).run(sockets=[listener])
