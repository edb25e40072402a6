"""A reward server under load: requests a second, how long they take, and whether each gets its own answer.

Run by recipes/benchmark_server.sh. Three processes: the server as `cellduality serve-reward` starts it; behind it a
policy that is no model, but says log-probabilities that follow from the tokens it was sent; and the clients, who know
from the same rule what each rollout has to be worth. So an answer that was lost, or given to another, shows. Then the
same against a server that takes on little, from more clients than it takes on: what is past its bound gets a 429.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from shared import conclude, lean_server, options, show

from cellduality_plugin.chat import render
from cellduality_plugin.config import Config
from cellduality_plugin.examples import Example
from cellduality_plugin.files import read_jsonl, write_jsonl
from cellduality_plugin.hub import read_tokenizer
from cellduality_plugin.openrlhf_hooks.remote.judge import Judge, with_endpoint
from cellduality_plugin.policies.base import Question, QuestionPolicy
from cellduality_plugin.tasks import get_task
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.models import build_small_llama

GENES = tuple(f"GENE{number}" for number in range(200))
LABELS = ("B cell", "CD4 T cell", "Monocyte", "NK cell")
LISTED, HIDDEN, CONTEXT = 40, 12, 512
GROUP = 8
COMMAND = [sys.executable, "-c", "from cellduality_plugin.cli import main; main()"]
TOKEN = "the-token-of-a-benchmark"
BROKEN = 50
"""Every so many requests one is malformed, and has to be refused."""
COLUMNS = {
    "": "{name}",
    "clients": "{clients}",
    "seconds": "{seconds:,.1f}",
    "rewards/s": "{per_second:,.1f}",
    "p50 ms": "{p50_ms:,.1f}",
    "p99 ms": "{p99_ms:,.1f}",
    **{code: f"{{codes[{code}]:,}}" for code in ("200", "400", "429")},
    "dual calls": "{dual_requests:,.0f}",
    "swapped": "{swapped}",
}


def log_prob(tokens: list[int]) -> float:
    """Return the log-probability of each token of a response, by the tokens of prompt and response."""
    return -(zlib.crc32(np.asarray(tokens, np.int32).tobytes()) % 4000) / 1000


def answer(body: bytes) -> bytes:
    """Return what a vLLM server says of its models, or of a prompt."""
    if not body:
        return json.dumps({"data": [{"id": "toy", "max_model_len": CONTEXT}]}).encode()
    tokens = json.loads(body)["prompt"]
    value = {"logprob": log_prob(tokens)}
    found = [None, *({str(token): value} for token in tokens[1:])]
    return json.dumps({"choices": [{"text": "", "prompt_logprobs": found}]}).encode()


class Rule(QuestionPolicy):
    """The same policy without a server: by which the clients know what to expect."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    async def answer(self, question: Question) -> list[float]:
        target = self.tokenizer(question.response, add_special_tokens=False)["input_ids"]
        return [log_prob([*render(self.tokenizer, question.prompt), *target])] * len(target)


def prepare(folder: Path, rows: int) -> tuple[Path, Path]:
    """Write so many rows of annotation, and a tokenizer for them; return configuration and model."""
    task, rng = get_task("cell_type_annotation"), np.random.default_rng(0)
    vocabulary = Vocabulary(GENES, {"cell_type": LABELS})
    made = []
    for number in range(rows):
        genes = tuple(rng.permutation(GENES)[:LISTED].tolist())
        known, hidden = genes[:-HIDDEN], genes[-HIDDEN:]
        example = Example(task.name, f"toy/{number}", {"cell": genes}, {"observed": known}, hidden, None)
        made.append({"input": task.primal_prompt(example.inputs, vocabulary), "label": example.to_label()})
    vocabulary.save(folder / "vocabulary.json")
    duals = (task.dual_prompt({"observed": GENES[:3]}, label, vocabulary) for label in LABELS)
    write_jsonl(folder / "sft.jsonl", ({"input": prompt, "output": task.rebuilt_response(GENES)} for prompt in duals))
    for name, kept in {"rl": made, "eval_validation": made[:1], "eval_test": made[:1]}.items():
        write_jsonl(folder / f"{name}.jsonl", kept)
    settings = {"tasks": {task.name: {"pair": task.name, "reward": "likelihood"}}}
    Config.read(settings).save(folder / "cellduality.json")
    build_small_llama(folder, folder / "model", hidden_size=16, layers=1, heads=2, max_len=CONTEXT)
    return folder / "cellduality.json", folder / "model"


def rollouts(config: Path, model: Path) -> list[dict[str, list[str]]]:
    """Return what OpenRLHF would post for each rollout, groups one after another, their answers repeating."""
    tokenizer, task = read_tokenizer(str(model)), get_task("cell_type_annotation")
    rng, made = np.random.default_rng(1), []
    for row in read_jsonl(config.parent / "rl.jsonl"):
        chat = [{"role": "user", "content": row["input"]}]
        prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        for label in rng.choice(LABELS, GROUP):
            said = task.answer_response(str(label), "GENE1 ranks high.") + tokenizer.eos_token
            made.append({"query": [prompt + said], "prompts": [prompt], "labels": [row["label"]]})
    return made


@contextlib.contextmanager
def reward_server(config: Path, model: Path, delay: float, *, at_once: int = 64, waiting: int = 8192) -> Iterator[str]:
    """Yield the address of a reward server whose policy answers after ``delay`` seconds."""
    with lean_server(answer, delay) as (url, _):
        endpoint = {"urls": (url,), "model": "toy", "tokenizer": str(model), "concurrency": at_once}
        with_endpoint(Config.load(config), **endpoint).save(served := config.with_name("served.json"))
        command = [*COMMAND, "serve-reward", "--port", "0", "--config", str(served), "--waiting", str(waiting)]
        environment = {**os.environ, "CELLDUALITY_TOKEN": TOKEN}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            try:
                yield "http://" + process.stdout.readline().strip().rpartition("@")[2]
            finally:
                process.terminate()


async def load(address: str, posted: list[dict[str, Any]], clients: int, seconds: float) -> dict[str, Any]:
    """Return what so many clients saw, each of whom asks again as soon as it has its answer."""
    answers: list[tuple[int, float, float]] = []  # rollout, reward, seconds
    codes: Counter[int] = Counter()
    wrong, numbers, ends = 0, itertools.count(), time.perf_counter() + seconds
    headers = {"Authorization": "Bearer " + TOKEN, "Content-Type": "application/json"}

    async def ask(session: aiohttp.ClientSession) -> None:
        nonlocal wrong
        while time.perf_counter() < ends:
            number = next(numbers)
            which, broken = number % len(posted), number % BROKEN == BROKEN - 1
            body = json.dumps({**posted[which], "labels": [str(number)]} if broken else posted[which])
            began = time.perf_counter()
            async with session.post(address, data=body, headers=headers) as response:
                said = await response.json()
            codes[response.status] += 1
            wrong += response.status not in ((400, 429) if broken else (200, 429))
            if response.status == 200:
                answers.append((which, said["rewards"], time.perf_counter() - began))
            elif response.status == 429:
                await asyncio.sleep(float(response.headers["Retry-After"]) / 10)

    began = time.perf_counter()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(ask(session) for _ in range(clients)))
        took = time.perf_counter() - began
        async with session.get(address + "metrics", headers=headers) as response:
            page = await response.text()
    values = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
    p50, p99 = (float(each) for each in np.quantile([answer[2] for answer in answers], [0.5, 0.99]) * 1e3)
    sent = next(numbers)
    return {
        "clients": clients,
        "seconds": took,
        "sent": sent,
        "answered": len(answers),
        "codes": Counter(dict(sorted(codes.items()))),
        "lost": sent - sum(codes.values()),
        "wrong_code": wrong,
        "per_second": len(answers) / took,
        "p50_ms": p50,
        "p99_ms": p99,
        "dual_requests": float(values["cellduality_dual_requests_total"]),
        "rewards_counted": float(values["cellduality_rewards_total"]),
        "answers": [answer[:2] for answer in answers],
    }


async def swapped(run: dict[str, Any], posted: list[dict[str, Any]], config: Path, model: Path) -> int:
    """Return how many rollouts were given another reward than theirs; forgets the answers."""
    tokenizer = read_tokenizer(str(model))
    judge = Judge(Config.load(config), tokenizer, Rule(tokenizer))
    expected: dict[int, float] = {}
    for which in {answer[0] for answer in run["answers"]}:
        sent = [posted[which][name][0] for name in ("query", "prompts", "labels")]
        expected[which] = (await judge.score(judge.rollout(*sent))).reward
    run["distinct_rewards"] = len(set(expected.values()))
    return sum(expected[which] != reward for which, reward in run.pop("answers"))


def main(settings: argparse.Namespace) -> int:
    """Measure, print, write the figures; return 1 if the promise is not kept."""
    config, model = prepare(settings.out, settings.rows)
    posted = rollouts(config, model)
    with reward_server(config, model, settings.delay) as address:
        asyncio.run(load(address, posted[:GROUP], 4, 0.5))  # imports and connections
        within = asyncio.run(load(address, posted[GROUP:], settings.clients, settings.seconds))
    with reward_server(config, model, 0.1, at_once=4, waiting=4) as address:
        asyncio.run(load(address, posted[:GROUP], 4, 0.5))
        beyond = asyncio.run(load(address, posted, settings.clients, max(1.0, settings.seconds / 6)))
    for run, of in ((within, posted[GROUP:]), (beyond, posted)):
        run["swapped"] = asyncio.run(swapped(run, of, config, model))
    runs = {"within the bound": within, "past the bound": beyond}
    named = [{"name": name, **run} for name, run in runs.items()]
    show([{heading: text.format_map(run) for heading, text in COLUMNS.items()} for run in named])
    promises = {
        "no answer lost": not any(run["lost"] or run["wrong_code"] for run in runs.values()),
        "no answer swapped": not any(run["swapped"] for run in runs.values()),
        "none refused within the bound": 429 not in within["codes"],
        "refused past the bound, the others answered": beyond["codes"][429] > 0 and beyond["answered"] > 0,
    }
    return conclude(settings.out / "server.json", runs, promises)


if __name__ == "__main__":
    sys.exit(main(options(__doc__, out=Path, clients=64, seconds=60.0, rows=8192, delay=0.02)))
