"""What benchmarks share: a server that answers after a fixed time, tables, promises that are kept or not."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

SPLITS = ("test", "validation")
console = Console() if sys.stdout.isatty() else Console(width=120)


def options(what: str | None, *folders: str, **wanted: Any) -> argparse.Namespace:
    """Return what the command line says: ``folders`` by their place, and options that are ``wanted``.

    An option is written as its type, [type] for several, its default, or a tuple of choices, the first the default.
    """
    parser = argparse.ArgumentParser(description=what)
    for name in folders:
        parser.add_argument(name, type=Path)
    for name, value in wanted.items():
        kind = value[0] if isinstance(value, list | tuple) else value
        more: dict[str, Any] = {"nargs": "+"} if isinstance(value, list) else {}
        more |= {"choices": value} if isinstance(value, tuple) else {}
        more |= {"type": kind, "required": True} if isinstance(kind, type) else {"type": type(kind), "default": kind}
        parser.add_argument(f"--{name.replace('_', '-')}", **more)
    return parser.parse_args()


def show(rows: Sequence[Mapping[str, str]], title: str = "") -> None:
    """Print rows by heading as a table: the first column to the left, numbers to the right."""
    table = Table(*rows[0], title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row.values())
    console.print(table)


def conclude(path: Path, found: Mapping[str, Any], promises: Mapping[str, bool], *, strict: bool = True) -> int:
    """Write what was found, with the machine, and print which promises are kept; return 1 if one is not."""
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    path.write_text(json.dumps({"machine": machine, **found}, indent=1) + "\n")
    for promise, kept in promises.items():
        console.print(f"{promise}: {'[green]yes[/]' if kept else '[red]NO[/]'}")
    return int(strict and not all(promises.values()))


async def _serve(answer: Callable[[bytes], bytes], delay: float, pipe: Any) -> None:
    from aiohttp import web

    times: list[tuple[float, float]] = []  # of each request: when it was whole, and when it was answered

    async def say(request: web.BaseRequest) -> web.Response:
        body = await request.read()
        asked = time.perf_counter()
        text = answer(body)
        await asyncio.sleep(asked + delay - time.perf_counter())
        times.append((asked, time.perf_counter()))
        return web.Response(body=text, content_type="application/json")

    runner = web.ServerRunner(web.Server(say, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    pipe.send(runner.addresses[0][1])
    used = time.process_time()
    while await asyncio.get_running_loop().run_in_executor(None, pipe.recv):
        spent, used = time.process_time() - used, time.process_time()
        asked, answered = zip(*times, strict=True)
        after = (sum(answered) - sum(asked)) / len(times)
        pipe.send({"served": len(times), "seconds": max(answered) - min(asked), "after": after, "cpu": spent})
        times.clear()


def _run(answer: Callable[[bytes], bytes], delay: float, pipe: Any) -> None:
    with contextlib.suppress(ImportError):
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    with contextlib.suppress(EOFError):  # the other end is gone
        asyncio.run(_serve(answer, delay, pipe))


@contextlib.contextmanager
def lean_server(answer: Callable[[bytes], bytes], delay: float) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yield (base URL, a function that returns what the server did since it was last called), in a process of its own.

    ``answer`` makes the JSON of a reply of the body of a request; a function of a module that a new process can import.
    What the server did is how many requests it ``served``, in how many ``seconds`` from the first to the last answer,
    how long ``after`` a request its answer was ready in the mean, and its ``cpu`` seconds.
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
