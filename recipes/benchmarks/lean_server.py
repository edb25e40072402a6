"""A local HTTP/1.1 server in a process of its own, as lean as one can be in Python: what answers after a fixed time."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

Answer: TypeAlias = Callable[[bytes], bytes]
"""From the body of a request to that of its answer, JSON both; a function of a module that a new process can import."""


_asked: list[float] = []
_answered: list[float] = []


class _Answering(asyncio.Protocol):
    """Keeps connections alive, and notes when requests were whole and when answers were sent."""

    def __init__(self, answer: Answer, delay: float) -> None:
        self.answer, self.delay, self.received = answer, delay, b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            head = self.received[:end].lower()
            length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]) if b"content-length:" in head else 0
            if len(self.received) < end + 4 + length:
                return
            body, self.received = self.received[end + 4 : end + 4 + length], self.received[end + 4 + length :]
            _asked.append(time.perf_counter())
            asyncio.get_running_loop().call_later(self.delay, self.say, self.answer(body))

    def say(self, body: bytes) -> None:
        if not self.transport.is_closing():
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            self.transport.write(head.encode() + body)
            _answered.append(time.perf_counter())


async def _serve(answer: Answer, delay: float, pipe: Any) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Answering(answer, delay), "127.0.0.1", 0, backlog=1024)
    pipe.send(server.sockets[0].getsockname()[1])
    used = time.process_time()
    while await loop.run_in_executor(None, pipe.recv):
        spent, used = time.process_time() - used, time.process_time()
        after = (sum(_answered) - sum(_asked)) / len(_answered)
        pipe.send({"served": len(_answered), "seconds": _answered[-1] - _asked[0], "after": after, "cpu": spent})
        _asked.clear()
        _answered.clear()


def _run(answer: Answer, delay: float, pipe: Any) -> None:
    with contextlib.suppress(ImportError):
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    with contextlib.suppress(EOFError):  # the other end is gone
        asyncio.run(_serve(answer, delay, pipe))


@contextlib.contextmanager
def lean_server(answer: Answer, delay: float) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yield (base URL, a function that returns what the server did since it was last called).

    That is how many requests it ``served``, in how many ``seconds`` from the first to the last answer, how long
    ``after`` a request its answer was sent in the mean, and its ``cpu`` seconds.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(answer, delay, theirs), daemon=True)
    process.start()

    def since() -> dict[str, Any]:
        ours.send(True)
        did: dict[str, Any] = ours.recv()
        return did

    try:
        yield f"http://127.0.0.1:{ours.recv()}/v1", since
    finally:
        process.kill()
        process.join()
