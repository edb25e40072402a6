"""How busy the sampler keeps a teacher: requests a second against a server that answers after a fixed time.

Run by recipes/benchmark_sampler.sh. The server is a process of its own and as lean as one can be in Python, so that
what is measured is the sampler: `sample` with an `EndpointTeacher`, its file of candidates and its live counter.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

GOAL = 0.9
GENES = 200
WORDS = 120


class Answering(asyncio.Protocol):
    """HTTP/1.1 with keep-alive: the same chat completion for every request, ``delay`` seconds after it is whole."""

    def __init__(self, delay: float, asked: list[float], answered: list[float]) -> None:
        self.delay, self.asked, self.answered, self.received = delay, asked, answered, b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            head = self.received[:end].lower()
            length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            if len(self.received) < end + 4 + length:
                return
            self.received = self.received[end + 4 + length :]
            self.asked.append(time.perf_counter())
            asyncio.get_running_loop().call_later(self.delay, self.answer)

    def answer(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(ANSWER)
            self.answered.append(time.perf_counter())


def _answer() -> bytes:
    text = "<think>" + " ".join(["marker"] * WORDS) + "</think><answer>B cell</answer>"
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 600, "completion_tokens": 160, "total_tokens": 760}
    body = json.dumps({"id": "1", "object": "chat.completion", "created": 1, "choices": [choice], "usage": usage})
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return (head + body).encode()


ANSWER = _answer()


async def serve(delay: float) -> None:
    """Answer until stdin is closed; for each line on it tell what was done since the last."""
    asked: list[float] = []
    answered: list[float] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Answering(delay, asked, answered), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    used = time.process_time()
    while await loop.run_in_executor(None, sys.stdin.readline):
        seconds = answered[-1] - asked[0]
        spent, used = time.process_time() - used, time.process_time()
        print(json.dumps({"served": len(answered), "seconds": seconds, "cpu": spent}), flush=True)
        asked.clear()
        answered.clear()
    server.close()


@contextlib.contextmanager
def server(delay: float) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yield (base URL, a function that tells what the server did since it was last called)."""
    command = [sys.executable, __file__, "serve", "--delay", str(delay)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        told, heard = process.stdin, process.stdout

        def since() -> dict[str, Any]:
            print(file=told, flush=True)
            did: dict[str, Any] = json.loads(heard.readline())
            return did

        try:
            yield f"http://127.0.0.1:{int(heard.readline())}/v1", since
        finally:
            process.kill()


def questions(count: int) -> list[Any]:
    """Return questions about cells of as many genes as fill a usual prompt."""
    from cellduality_plugin.examples import Example
    from cellduality_plugin.tasks import get_task
    from cellduality_plugin.vocabulary import Vocabulary
    from data_prep.traces.questions import Question

    task = get_task("cell_type_annotation")
    genes = tuple(f"GENE{number}" for number in range(GENES))
    vocabulary = Vocabulary(genes, {"cell_type": ("B cell", "T cell")})
    made = []
    for number in range(count):
        example = Example(task.name, f"toy/{number}", {"cell": genes}, {"observed": genes[:150]}, genes[150:], "B cell")
        made.append(Question(task, "primal", example, 0, "B cell", task.primal_prompt(example.inputs, vocabulary)))
    return made


def cpu_seconds() -> float:
    """Return the processor time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(requests: int, delay: float, concurrency: int, out: Path) -> dict[str, Any]:
    """Return requests a second of one run, and the processor time that each side took for one request.

    The rate is that from the first request that reached the server to the last answer.
    """
    from data_prep.traces.endpoint import EndpointTeacher
    from data_prep.traces.sampling import SampleSettings, sample

    asked, warm = questions(requests // 4), questions(concurrency)
    settings = SampleSettings(candidates=4, concurrency=concurrency)
    with server(delay) as (address, since):
        teacher = EndpointTeacher("toy", address)
        sample(warm, teacher, out / "warm.jsonl", settings, show_progress=False)  # imports and files of bytecode
        since()
        used = cpu_seconds()
        summary = sample(asked, teacher, out / "candidates.jsonl", settings)
        used, did = cpu_seconds() - used, since()
    rate = did["served"] / did["seconds"]
    return {
        "requests": summary.asked,
        "seconds": summary.seconds,
        "per_second": rate,
        "share": rate / (concurrency / delay),
        "cpu_ms": used / summary.asked * 1e3,
        "server_cpu_ms": did["cpu"] / did["served"] * 1e3,
        "each_once": summary.asked == did["served"] == 4 * len(asked) == _lines(out / "candidates.jsonl"),
    }


def _lines(path: Path) -> int:
    return len({json.dumps([row["key"], row["candidate"]]) for row in map(json.loads, path.open(encoding="utf-8"))})


def main(settings: argparse.Namespace) -> int:
    """Measure, print a table, write the figures; return 1 if the promise is not kept."""
    from rich.console import Console
    from rich.table import Table

    console = Console() if sys.stdout.isatty() else Console(width=120)
    runs = []
    for _ in range(settings.repeats):
        with tempfile.TemporaryDirectory(dir=settings.out) as folder:
            runs.append(measure(settings.requests, settings.delay, settings.concurrency, Path(folder)))
    limit = settings.concurrency / settings.delay
    title = f"Server answering in {settings.delay * 1e3:g} ms, {settings.concurrency} at a time: {limit:,.0f}/s at most"
    table = Table(title=title, title_justify="left")
    for column in (
        "requests",
        "seconds",
        "requests/s",
        "of the limit",
        "sampler ms/request",
        "server ms/request",
    ):
        table.add_column(column, justify="right")
    for run in runs:
        table.add_row(
            f"{run['requests']:,}",
            f"{run['seconds']:.1f}",
            f"{run['per_second']:,.0f}",
            f"{run['share']:.1%}",
            f"{run['cpu_ms']:.2f}",
            f"{run['server_cpu_ms']:.2f}",
        )
    console.print(table)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    found = {"machine": machine, "delay": settings.delay, "concurrency": settings.concurrency, "runs": runs}
    settings.out.joinpath("sampler.json").write_text(json.dumps(found, indent=1) + "\n")
    kept = {
        f"{GOAL:.0%} of the limit": max(run["share"] for run in runs) >= GOAL,
        "every candidate asked for once and kept": all(run["each_once"] for run in runs),
    }
    for promise, good in kept.items():
        console.print(f"{promise}: " + ("[green]yes[/]" if good else "[red]NO[/]"))
    return 0 if all(kept.values()) or not settings.strict else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    everything = commands.add_parser("all")
    everything.add_argument("--out", type=Path, required=True)
    everything.add_argument("--requests", type=int, required=True)
    everything.add_argument("--concurrency", type=int, required=True)
    everything.add_argument("--delay", type=float, required=True)
    everything.add_argument("--repeats", type=int, default=1)
    everything.add_argument("--strict", type=int, default=1)
    commands.add_parser("serve").add_argument("--delay", type=float, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    settings = _arguments()
    if settings.command == "all":
        sys.exit(main(settings))
    with contextlib.suppress(ImportError):
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(serve(settings.delay))
