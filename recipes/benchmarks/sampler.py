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
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
from shared import conclude, console, lean_server, options, show

from cellduality_plugin.examples import Example
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.tasks import get_task
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.traces.asking.endpoint import INSTRUCTIONS, EndpointTeacher
from data_prep.traces.asking.sampling import SampleSettings, sample
from data_prep.traces.questions import Question

GOAL = 0.9
CANDIDATES = 4
TEXT = "<think>" + " ".join(["marker"] * 120) + "</think><answer>B cell</answer>"
CHOICE = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}
USAGE = {"prompt_tokens": 600, "completion_tokens": 160, "total_tokens": 760}
COMPLETION = {"id": "1", "object": "chat.completion", "created": 1, "choices": [CHOICE], "usage": USAGE}
ANSWER = json.dumps(COMPLETION).encode()
COLUMNS = {
    "client": "{client}",
    "requests": "{requests:,}",
    "seconds": "{seconds:.1f}",
    "requests/s": "{per_second:,.0f}",
    "of the limit": "{share:.1%}",
    "answered after ms": "{server_ms:.2f}",
    "client CPU ms": "{cpu_ms:.2f}",
    "server CPU ms": "{server_cpu_ms:.2f}",
}


def answer(body: bytes) -> bytes:
    """Return the same chat completion for every request."""
    return ANSWER


def questions(count: int) -> list[Question]:
    """Return questions about cells of as many genes as fill a usual prompt."""
    task, genes = get_task("cell_type_annotation"), tuple(f"GENE{number}" for number in range(200))
    prompt = task.primal_prompt({"cell": genes}, Vocabulary(genes, {"cell_type": ("B cell", "T cell")}))
    parts = {"cell": genes}, {"observed": genes[:150]}, genes[150:], "B cell"
    cells = (Example(task.name, f"toy/{number}", *parts) for number in range(count))
    return [Question(task, "primal", cell, 0, "B cell", prompt) for cell in cells]


def sampler(asked: list[Question], address: str, concurrency: int, out: Path) -> int:
    """Return how many answers there were after sampling four candidates of each question."""
    settings = SampleSettings(candidates=CANDIDATES, concurrency=concurrency)
    return sample(asked, EndpointTeacher("toy", address), out, settings).asked


def aiohttp_alone(asked: list[Question], address: str, concurrency: int, out: Path) -> int:
    """Return how many answers there were to four requests for each question; none is written."""
    wanted = iter(range(CANDIDATES * len(asked)))

    async def work(session: aiohttp.ClientSession) -> int:
        answers = 0
        for number in wanted:
            prompts = {"system": INSTRUCTIONS, "user": asked[number // CANDIDATES].prompt}
            messages = [{"role": role, "content": prompt} for role, prompt in prompts.items()]
            body = {"model": "toy", "max_tokens": 1024, "seed": number, "temperature": 1.0, "messages": messages}
            async with session.post(f"{address}/chat/completions", json=body) as response:
                answers += len((await response.json())["choices"])
        return answers

    async def all_of_them() -> int:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            return sum(await asyncio.gather(*(work(session) for _ in range(concurrency))))

    return asyncio.run(all_of_them())


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
        counts = {answers, did["served"]}
        if kept.exists():
            counts.add(len({(row["key"], row["candidate"]) for row in read_jsonl(kept)}))
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
    asked, delay, concurrency = questions(settings.requests // CANDIDATES), settings.delay, settings.concurrency
    runs: dict[str, list[dict[str, Any]]] = {"sampler": [], "aiohttp alone": []}
    for _ in range(settings.repeats):
        for name, client in zip(runs, (sampler, aiohttp_alone), strict=True):
            runs[name].append(measure(client, asked, delay, concurrency, settings.out))
    share, peer = (statistics.median(run["share"] for run in of) for of in runs.values())
    title = f"Server answering in {delay * 1e3:g} ms, {concurrency} at a time: {concurrency / delay:,.0f}/s at most"
    named = [{"client": name, **run} for name, of in runs.items() for run in of]
    show([{heading: text.format_map(run) for heading, text in COLUMNS.items()} for run in named], title)
    console.print(f"median share of the limit: sampler {share:.1%}, aiohttp alone {peer:.1%}")
    found = {"delay": delay, "concurrency": concurrency, "share": share, "runs": runs["sampler"]}
    found |= {"peer_share": peer, "peer_runs": runs["aiohttp alone"]}
    promises = {
        f"{GOAL:.0%} of the limit": share >= GOAL,
        "every candidate asked for once and kept": all(run["each_once"] for run in runs["sampler"]),
    }
    return conclude(settings.out / "sampler.json", found, promises, strict=bool(settings.strict))


if __name__ == "__main__":
    sys.exit(main(options(__doc__, out=Path, requests=int, concurrency=int, delay=float, repeats=1, strict=1)))
