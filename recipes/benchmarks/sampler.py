"""How busy the sampler keeps a teacher: requests a second against a server that answers after a fixed time.

Run by recipes/benchmark_sampler.sh. What is measured is the sampler: `sample` with an `EndpointTeacher`, its file of
candidates and its live counter. By turns with it a loop that posts the same prompts with aiohttp alone, and keeps
nothing: the peer that shows how much of what is missing is the machine's doing. It is no bound, as it builds no request
before the last answer is there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lean_server import lean_server
from rich.console import Console
from rich.table import Table

GOAL = 0.9
GENES = 200
WORDS = 120
CANDIDATES = 4


def _answer() -> bytes:
    text = "<think>" + " ".join(["marker"] * WORDS) + "</think><answer>B cell</answer>"
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 600, "completion_tokens": 160, "total_tokens": 760}
    return json.dumps(
        {"id": "1", "object": "chat.completion", "created": 1, "choices": [choice], "usage": usage}
    ).encode()


ANSWER = _answer()


def answer(body: bytes) -> bytes:
    """Return the same chat completion for every request."""
    return ANSWER


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


def sampler(asked: list[Any], address: str, concurrency: int, out: Path) -> int:
    """Return how many answers there were after sampling four candidates of each question."""
    from data_prep.traces.asking.endpoint import EndpointTeacher
    from data_prep.traces.asking.sampling import SampleSettings, sample

    settings = SampleSettings(candidates=CANDIDATES, concurrency=concurrency)
    return sample(asked, EndpointTeacher("toy", address), out, settings).asked


def aiohttp_alone(asked: list[Any], address: str, concurrency: int, out: Path) -> int:
    """Return how many answers there were to four requests for each question; none is written."""
    import aiohttp

    from data_prep.traces.asking.endpoint import INSTRUCTIONS

    wanted = iter(range(CANDIDATES * len(asked)))
    answers = 0

    async def work(session: aiohttp.ClientSession) -> None:
        nonlocal answers
        for number in wanted:
            prompts = {"system": INSTRUCTIONS, "user": asked[number // CANDIDATES].prompt}
            messages = [{"role": role, "content": prompt} for role, prompt in prompts.items()]
            body = {"model": "toy", "max_tokens": 1024, "seed": number, "temperature": 1.0, "messages": messages}
            async with session.post(f"{address}/chat/completions", json=body) as response:
                answers += len((await response.json())["choices"])

    async def all_of_them() -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await asyncio.gather(*(work(session) for _ in range(concurrency)))

    asyncio.run(all_of_them())
    return answers


def measure(client: Callable[..., int], asked: list[Any], delay: float, concurrency: int, out: Path) -> dict[str, Any]:
    """Return requests a second of one run, and the processor time that each side took for one request.

    The rate is that from the first request that reached the server to the last answer.
    """
    with tempfile.TemporaryDirectory(dir=out) as folder, lean_server(answer, delay) as (address, since):
        kept = Path(folder, "candidates.jsonl")
        client(asked[:concurrency], address, concurrency, Path(folder, "warm.jsonl"))  # imports and files of bytecode
        since()
        used = time.process_time()
        answers = client(asked, address, concurrency, kept)
        used, did = time.process_time() - used, since()
        rows = map(json.loads, kept.read_text(encoding="utf-8").splitlines()) if kept.exists() else ()
        distinct = {(row["key"], row["candidate"]) for row in rows}
        counts = {answers, did["served"], *([len(distinct)] if kept.exists() else [])}
    rate = did["served"] / did["seconds"]
    return {
        "requests": answers,
        "seconds": did["seconds"],
        "per_second": rate,
        "share": rate / (concurrency / delay),
        "cpu_ms": used / answers * 1e3,
        "server_ms": did["after"] * 1e3,
        "server_cpu_ms": did["cpu"] / did["served"] * 1e3,
        "each_once": counts == {CANDIDATES * len(asked)},
    }


def main(settings: argparse.Namespace) -> int:
    """Measure, print a table, write the figures; return 1 if the promise is not kept."""
    asked = questions(settings.requests // CANDIDATES)
    runs: dict[str, list[dict[str, Any]]] = {"sampler": [], "aiohttp alone": []}
    for _ in range(settings.repeats):
        for name, client in zip(runs, (sampler, aiohttp_alone), strict=True):
            runs[name].append(measure(client, asked, settings.delay, settings.concurrency, settings.out))
    share, peer = (statistics.median(run["share"] for run in of) for of in runs.values())
    console = Console() if sys.stdout.isatty() else Console(width=120)
    console.print(table(runs, settings.delay, settings.concurrency))
    console.print(f"median share of the limit: sampler {share:.1%}, aiohttp alone {peer:.1%}")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    found = {"machine": machine, "delay": settings.delay, "concurrency": settings.concurrency}
    found |= {"share": share, "runs": runs["sampler"], "peer_share": peer, "peer_runs": runs["aiohttp alone"]}
    settings.out.joinpath("sampler.json").write_text(json.dumps(found, indent=1) + "\n")
    kept = {
        f"{GOAL:.0%} of the limit": share >= GOAL,
        "every candidate asked for once and kept": all(run["each_once"] for run in runs["sampler"]),
    }
    for promise, good in kept.items():
        console.print(f"{promise}: " + ("[green]yes[/]" if good else "[red]NO[/]"))
    return 0 if all(kept.values()) or not settings.strict else 1


def table(runs: dict[str, list[dict[str, Any]]], delay: float, concurrency: int) -> Table:
    """Return the table of all runs."""
    title = f"Server answering in {delay * 1e3:g} ms, {concurrency} at a time: {concurrency / delay:,.0f}/s at most"
    made = Table("client", title=title, title_justify="left")
    columns = "requests", "seconds", "requests/s", "of the limit", "answered after ms", "client CPU ms", "server CPU ms"
    for column in columns:
        made.add_column(column, justify="right")
    for name, of in runs.items():
        for run in of:
            rate = f"{run['requests']:,}", f"{run['seconds']:.1f}", f"{run['per_second']:,.0f}", f"{run['share']:.1%}"
            times = (f"{run[what]:.2f}" for what in ("server_ms", "cpu_ms", "server_cpu_ms"))
            made.add_row(name, *rate, *times)
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["all"])
    parser.add_argument("--out", type=Path, required=True)
    for name, kind in {"requests": int, "concurrency": int, "delay": float}.items():
        parser.add_argument(f"--{name}", type=kind, required=True)
    for name in ("repeats", "strict"):
        parser.add_argument(f"--{name}", type=int, default=1)
    sys.exit(main(parser.parse_args()))
