"""Several engines, each in a process with cards of its own: batches are dealt out to them, or single requests."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol, TypeAlias, TypeVar

from cellduality_plugin.errors import CellDualityError

Client = TypeVar("Client")
Opener: TypeAlias = Callable[[], AbstractContextManager[Any]]  # which can be pickled
Serve: TypeAlias = Callable[[Connection, Any], None]  # over a pipe, what was opened

CARDS = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Request:
    """One user prompt, before the chat template, and how to decode its response."""

    prompt: str
    temperature: float  # 0 is greedy
    seed: int  # of this one request, so that its response does not depend on the batch around it


class Decoder(Protocol):
    """Anything that answers a batch of requests."""

    def generate(self, requests: Sequence[Request], title: str) -> list[str | None]:
        """Return one response a request, in order; None where the prompt leaves no room for one."""
        ...


def sharded_decoder(opener: Opener, groups: Sequence[str]) -> AbstractContextManager[Decoder]:
    """Open a decoder on each of ``groups``, see :func:`_sharded`; every batch is dealt out to all."""
    return _sharded(_Dealt, _serve_batches, opener, groups)


def sharded_engine(opener: Opener, groups: Sequence[str]) -> AbstractContextManager[ShardedEngine]:
    """Open a vLLM engine on each of ``groups``, see :func:`_sharded`; each request goes to the next of them."""
    return _sharded(ShardedEngine, _serve_requests, opener, groups)


@contextlib.contextmanager
def _sharded(
    client: Callable[[list[Connection]], Client], serve: Serve, opener: Opener, groups: Sequence[str]
) -> Iterator[Client]:
    """Open and serve in a process for each of ``groups``, which holds its cards; yield the client of all their pipes.

    A CellDualityError is raised if one of them cannot be opened, or ends before it has answered. None outlives the
    block: None through its pipe is the end of each.
    """
    context = multiprocessing.get_context("spawn")
    workers = []
    try:
        for cards in groups:
            ours, theirs = context.Pipe()
            workers.append((context.Process(target=_work, args=(theirs, cards, opener, serve), daemon=False), ours))
            workers[-1][0].start()
            theirs.close()
        pipes = [pipe for _, pipe in workers]
        for pipe in pipes:
            _answer(pipe)
        yield client(pipes)
    finally:
        for _, pipe in workers:
            with contextlib.suppress(OSError):
                pipe.send(None)
        for process, _ in workers:
            process.join(30)
            process.terminate()


def _work(pipe: Connection, cards: str, opener: Opener, serve: Serve) -> None:
    """Say that it is open, and serve; an error is sent, too."""
    os.environ[CARDS] = cards
    try:
        with opener() as served:
            pipe.send(True)
            serve(pipe, served)
    except CellDualityError as error:
        pipe.send(error)


def _answer(pipe: Connection) -> Any:
    try:
        answer = pipe.recv()
    except (EOFError, OSError) as error:
        what, hint = "an engine ended without a word", "read its log above; the kernel ends what takes too much memory"
        raise CellDualityError(what, code="engine-died", hint=hint) from error
    if isinstance(answer, BaseException):
        raise answer
    return answer


class _Dealt:
    """A :class:`Decoder` that asks all at once, in turns."""

    def __init__(self, pipes: Sequence[Connection]) -> None:
        self._pipes = pipes

    def generate(self, requests: Sequence[Request], title: str) -> list[str | None]:
        found: list[str | None] = [None] * len(requests)
        for place, pipe in enumerate(self._pipes):
            with contextlib.suppress(OSError):  # it has ended, and is found so below
                pipe.send((requests[place :: len(self._pipes)], title))
        for place, pipe in enumerate(self._pipes):
            found[place :: len(self._pipes)] = _answer(pipe)
        return found


def _serve_batches(pipe: Connection, decoder: Decoder) -> None:
    while (asked := pipe.recv()) is not None:
        pipe.send(decoder.generate(*asked))


class ShardedEngine:
    """OpenRLHF's asynchronous ``generate`` over several vLLM engines; each request goes to the next of them.

    A request that an engine refuses raises what the engine raised; if an engine dies, all that wait, and all that come
    later, get a CellDualityError.
    """

    def __init__(self, pipes: Sequence[Connection]) -> None:
        self._pipes, self._numbers = pipes, itertools.count()
        self._waiting: dict[str, Future[Any]] = {}
        self._failure: Exception | None = None
        for pipe in pipes:  # answers are taken while requests are sent, or both sides could wait for room in the pipe
            threading.Thread(target=self._listen, args=(pipe,), daemon=True).start()

    async def generate(self, tokens: list[int], params: Any) -> Any:
        """Return vLLM's output for the prompt ``tokens``."""
        from vllm.sampling_params import RequestOutputKind

        params.output_kind = RequestOutputKind.FINAL_ONLY
        number = next(self._numbers)
        self._waiting[str(number)] = waiting = Future[Any]()
        try:
            if self._failure:
                raise self._failure
            with contextlib.suppress(OSError):  # it has ended, which its listener finds
                self._pipes[number % len(self._pipes)].send((str(number), tokens, params))
            return await asyncio.wrap_future(waiting)
        finally:
            del self._waiting[str(number)]

    def _listen(self, pipe: Connection) -> None:
        try:
            while True:
                name, output = _answer(pipe)
                if waiting := self._waiting.get(name):
                    _settle(waiting, output)
        except Exception as error:  # the engine's failure is that of all who wait
            self._failure = error
            for waiting in [*self._waiting.values()]:
                _settle(waiting, error)


def _settle(waiting: Future[Any], output: Any) -> None:
    """Give a future its result, or its exception."""
    with contextlib.suppress(InvalidStateError):  # its caller has given up, or was told of a failure
        if isinstance(output, Exception):
            waiting.set_exception(output)
        else:
            waiting.set_result(output)


def _serve_requests(pipe: Connection, served: Any) -> None:
    """Put (name, tokens, sampling parameters) to an engine as they come, send (name, output) as they are done."""
    engine = served.llm.llm_engine
    while True:
        # All that has come shares the next step; with nothing to do it waits.
        while pipe.poll() or not engine.has_unfinished_requests():
            if (asked := pipe.recv()) is None:
                return
            name, tokens, params = asked
            try:
                engine.add_request(name, {"prompt_token_ids": tokens}, params)
            except Exception as error:  # of this request alone: whoever asked deals with it
                pipe.send((name, error))
        for output in engine.step():
            if output.finished:
                pipe.send((output.request_id, output))
