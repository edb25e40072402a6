"""The small world the fast tests live in."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import typer.main
import typer.testing
from hypothesis import settings

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.config import Config
from cellduality_plugin.evaluation.metrics import METRICS
from cellduality_plugin.examples import Example
from cellduality_plugin.files import write_jsonl
from cellduality_plugin.hub import read_tokenizer
from cellduality_plugin.profiles import Profile, Profiles
from cellduality_plugin.rewards import REWARDS
from cellduality_plugin.scoring import Scorer
from cellduality_plugin.tasks import TASKS, DualTask
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.models import build_small_llama
from data_prep.rows import RowMaker
from data_prep.settings import PrepareSettings
from tests.scripted_server import Said, ScriptedServer

# The first call may import a library or compile a loop; how long that takes is the machine's business.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

# The command line is built once for all tests that run it, not for each: a sixth of a second.
typer.main.get_command = typer.testing._get_command = functools.cache(typer.main.get_command)

GENES = ("CD3D", "CD3E", "CD74", "CD79A", "CST3", "FTL", "GNLY", "HLA-DRA", "IL7R", "LYZ", "MS4A1", "NKG7", "S100A9")


ENVIRONMENT = os.environ


@pytest.fixture(autouse=True)
def environment() -> None:
    """``os.environ`` is the one that libraries hold: ``datasets`` puts a copy in its place when it maps."""
    os.environ = ENVIRONMENT  # noqa: B003


@pytest.fixture(autouse=True)
def registries() -> Iterator[None]:
    """What a test registers is gone after it."""
    with patch.dict(REWARDS), patch.dict(METRICS), patch.dict(TASKS):
        yield


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    labels = {
        "cell_type": ("CD14+ Monocyte", "CD19+ B", "CD56+ NK", "T"),
        "exposure": ("exposed", "not exposed"),
        "perturbation": ("control", "cytokine IFN-beta", "drug erlotinib 2 uM", "knockdown LYZ"),
        "sensitivity": ("resistant", "sensitive"),
    }
    return Vocabulary(genes=GENES, labels=labels)


@pytest.fixture(scope="session")
def cell() -> Cell:
    genes = ("CD74", "CD79A", "HLA-DRA", "MS4A1", "FTL", "CST3", "LYZ", "IL7R")
    return Cell(
        "set/AAAC-1",
        genes,
        obs={"cell_type": "CD19+ B", "exposure": "exposed", "sensitivity": "sensitive"},
        condition={"perturbation": "cytokine IFN-beta", "drug": "IFN-beta"},
        control=("CD74", "HLA-DRA", "CD79A", "FTL", "MS4A1", "CST3", "CD3E", "GNLY"),
    )


@pytest.fixture(params=sorted(TASKS))
def task(request: pytest.FixtureRequest) -> DualTask:
    return TASKS[request.param]


@pytest.fixture
def example(task: DualTask, cell: Cell) -> Example:
    return task.example(cell, hidden=0.25, labelled=True, rng=np.random.default_rng(0))


@pytest.fixture
def make_config(tmp_path: Path, vocabulary: Vocabulary, cell: Cell) -> Callable[..., Config]:
    """Return a function that writes a configuration of the built-in pairs into a folder and loads it."""

    def make(**settings: object) -> Config:
        vocabulary.save(tmp_path / "vocabulary.json")
        profiles_of(cell, vocabulary).save(tmp_path / "profiles.npz")
        values = {"tasks": {name: {"pair": name} for name in TASKS}, "profiles": "profiles.npz", **settings}
        Config.read(values).save(tmp_path / "cellduality.json")
        return Config.load(tmp_path / "cellduality.json")

    return make


@pytest.fixture
def scorer(make_config: Callable[..., Config]) -> Scorer:
    """The scorer of all built-in pairs, which waits no longer than a moment."""
    return Scorer(make_config(dual={"timeout_seconds": 0.05}))


def profiles_of(cell: Cell, vocabulary: Vocabulary) -> Profiles:
    """Return profiles that know what the genes of ``cell`` are of, and nothing else."""
    own = [float(gene in cell.genes) for gene in vocabulary.genes]
    by_kind = {}
    for kind, labels in vocabulary.labels.items():
        weights = np.outer([10.0 * (label == {**cell.obs, **cell.condition}[kind]) for label in labels], own)
        by_kind[kind] = Profile(labels, weights.astype(np.float32), np.zeros(len(labels), np.float32))
    return Profiles(vocabulary.genes, by_kind)


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary, cell: Cell) -> SimpleNamespace:
    """A few rows in ``data``, their ``config``, and a Llama of one layer, ``model``, with a real ``tokenizer``."""
    data, model = (tmp_path_factory.mktemp("small world") / name for name in ("data", "model"))
    tasks, rng = list(TASKS.values()), np.random.default_rng(0)
    rows = RowMaker(tasks, vocabulary, PrepareSettings(n_rl=len(tasks)))
    evaluation, rl = list(rows.evaluation([cell], rng)), rows.rl([cell], [], [1.0] * len(tasks), rng)
    vocabulary.save(data / "vocabulary.json")
    Config.read({"tasks": {name: {"pair": name} for name in TASKS}}).save(config := data / "cellduality.json")
    write_jsonl(data / "sft.jsonl", rows.sft([cell], rng))
    write_jsonl(data / "rl.jsonl", rl)
    for split in ("validation", "test"):
        write_jsonl(data / f"eval_{split}.jsonl", evaluation)
    build_small_llama(data, model, hidden_size=16, layers=1, heads=2, max_len=256)
    return SimpleNamespace(data=data, config=config, model=model, tokenizer=read_tokenizer(str(model)))


class PolicyServer(ScriptedServer):
    """Speaks as vLLM does: token ids in, token ids and log-probabilities out.

    It says ``text`` (or what ``text`` makes of the question), and finds token n as likely as ``log_prob(n)`` says.
    """

    def __init__(self, tokenizer: Any, context: int | None = 256) -> None:
        super().__init__()
        self.tokenizer, self.context = tokenizer, context
        self.text: str | Callable[[str], str] = ""
        self.log_prob: Callable[[int], float] = lambda place: -0.01 * (place % 7)
        self.after = 0.0
        self.asked: list[dict[str, Any]] = []

    def says(self, tokens: list[int]) -> str:
        return self.text if isinstance(self.text, str) else self.text(self.tokenizer.decode(tokens))

    def answer(self, path: str, body: dict[str, Any]) -> Said:
        if path == "/v1/models":  # never scripted: whoever asks anything asks for this first
            return Said(body=json.dumps({"data": [{"id": "toy", "max_model_len": self.context}]}).encode())
        with self.lock:
            self.asked.append(body)
        return super().answer(path, body)

    def usual(self, path: str, body: dict[str, Any]) -> Said:
        if path == "/v1/chat/completions":
            message = {"role": "assistant", "content": self.text}
            return Said(body=json.dumps({"choices": [{"message": message}]}).encode(), after=self.after)
        tokens = body["prompt"]
        text = self.says(tokens)
        choice: dict[str, Any] = {"index": 0, "text": text, "prompt_logprobs": None}
        if body.get("return_token_ids"):
            answered = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            choice["token_ids"] = [*answered, self.tokenizer.eos_token_id][: body["max_tokens"]]
        if "prompt_logprobs" in body:
            told = [{str(token): {"logprob": self.log_prob(place), "rank": 1}} for place, token in enumerate(tokens)]
            choice["prompt_logprobs"] = [None, *told[1:]]
        return Said(body=json.dumps({"choices": [choice]}).encode(), after=self.after)


@pytest.fixture
def said() -> type[Said]:
    return Said


@pytest.fixture
def policy_server(small_world: SimpleNamespace) -> Iterator[PolicyServer]:
    server = PolicyServer(small_world.tokenizer)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def serve_app() -> Iterator[Callable[[Any], str]]:
    """Return a function that serves an application until the test ends, and gives its host and port.

    What is under way at the end is cut.
    """
    import uvicorn

    def serve(app: Any) -> str:
        settings = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=0)
        server, listener = uvicorn.Server(settings), socket.create_server(("127.0.0.1", 0), backlog=1024)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        stack.callback(listener.close)  # the last comes first
        stack.callback(thread.join, 10)
        stack.callback(setattr, server, "should_exit", True)
        return f"127.0.0.1:{listener.getsockname()[1]}"

    with ExitStack() as stack:
        yield serve
