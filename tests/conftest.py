"""The small world the fast tests live in."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.config import Config
from cellduality_plugin.examples import Example
from cellduality_plugin.files import write_jsonl
from cellduality_plugin.tasks import TASKS, DualTask
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.models.small_llama import build_small_llama
from data_prep.rows import eval_rows, rl_rows, sft_rows

# The first call may import a library or compile a loop; how long that takes is the machine's business.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

GENES = ("CD3D", "CD3E", "CD74", "CD79A", "CST3", "FTL", "GNLY", "HLA-DRA", "IL7R", "LYZ", "MS4A1", "NKG7", "S100A9")


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
def make_config(tmp_path: Path, vocabulary: Vocabulary) -> Callable[..., Config]:
    """Return a function that writes a configuration of the built-in pairs into a folder and loads it."""

    def make(**settings: object) -> Config:
        vocabulary.save(tmp_path / "vocabulary.json")
        values = {"tasks": {name: {"pair": name} for name in TASKS}, **settings}
        Config.read(values).save(tmp_path / "cellduality.json")
        return Config.load(tmp_path / "cellduality.json")

    return make


@dataclass(frozen=True)
class SmallWorld:
    """The folder of the rows, the folder of the model."""

    data: Path
    model: Path

    @property
    def config(self) -> Path:
        return self.data / "cellduality.json"

    @cached_property
    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.model)


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary, cell: Cell) -> SmallWorld:
    """A prepared folder of a few rows and a Llama of one layer: enough for a real tokenizer, made in a second."""
    data, model = (tmp_path_factory.mktemp("small world") / name for name in ("data", "model"))
    tasks, rng = list(TASKS.values()), np.random.default_rng(0)
    evaluation = eval_rows([cell], tasks, vocabulary, hidden=0.25, rng=rng)
    rl = rl_rows(
        [cell],
        [],
        dict.fromkeys(tasks, 1.0),
        vocabulary,
        count=len(tasks),
        hidden=0.25,
        includes_labelled=True,
        rng=rng,
    )
    vocabulary.save(data / "vocabulary.json")
    Config.read({"tasks": {name: {"pair": name} for name in TASKS}}).save(data / "cellduality.json")
    write_jsonl(data / "sft.jsonl", sft_rows([cell], tasks, vocabulary, hidden=0.25, views=1, rng=rng))
    write_jsonl(data / "rl.jsonl", rl)
    for split in ("validation", "test"):
        write_jsonl(data / f"eval_{split}.jsonl", evaluation)
    build_small_llama(data, model, hidden_size=16, layers=1, heads=2, max_len=256)
    return SmallWorld(data, model)


@dataclass
class Said:
    """One response of a scripted server: its status, body and headers, after how long; or a cut connection."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    after: float = 0.0
    cut: bool = False


class PolicyServer:
    """A real HTTP server on loopback that speaks as vLLM does: token ids in, token ids and log-probabilities out.

    It says ``text`` (or what ``text`` makes of the question), finds token number n as likely as ``log_prob(n)`` says,
    and says the next of ``script`` instead as long as there is one.
    """

    def __init__(self, tokenizer: Any, context: int | None = 256) -> None:
        self.tokenizer, self.context = tokenizer, context
        self.text: str | Callable[[str], str] = ""
        self.log_prob: Callable[[int], float] = lambda place: -0.01 * (place % 7)
        self.after = 0.0
        self.script: list[Said] = []
        self.asked: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self._lock, self._port, self._http = threading.Lock(), 0, None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def says(self, tokens: list[int]) -> str:
        return self.text if isinstance(self.text, str) else self.text(self.tokenizer.decode(tokens))

    def answer(self, path: str, body: dict[str, Any]) -> Said:
        if path == "/v1/models":
            return Said(body=json.dumps({"data": [{"id": "toy", "max_model_len": self.context}]}).encode())
        with self._lock:
            self.asked.append(body)
            if self.script:
                return self.script.pop(0)
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

    def start(self) -> None:
        """Listen, at the same port as before if there was one."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.say(server.answer(self.path, {}))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                server.keys.add(self.headers["authorization"])
                self.say(server.answer(self.path, body))

            def say(self, said: Said) -> None:
                time.sleep(said.after)
                try:
                    if said.cut or server._http is None:
                        self.close_connection = True
                        self.connection.shutdown(socket.SHUT_RDWR)
                        return
                    self.send_response(said.status)
                    for name, value in {"content-type": "application/json", **said.headers}.items():
                        self.send_header(name, value)
                    self.send_header("content-length", str(len(said.body)))
                    self.end_headers()
                    self.wfile.write(said.body)
                except OSError:  # whoever asked is gone
                    self.close_connection = True

            def log_message(self, *arguments: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # whoever asked is gone

        self._http = Server(("127.0.0.1", self._port), Handler)
        self._port = self._http.server_port
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        """Listen no more; connections that are open are cut at their next request."""
        if self._http is not None:
            http, self._http = self._http, None
            http.shutdown()
            http.server_close()


@pytest.fixture
def said() -> type[Said]:
    return Said


@pytest.fixture
def policy_servers(small_world: SmallWorld) -> Iterator[Callable[[], PolicyServer]]:
    """Return a function that starts another :class:`PolicyServer`."""
    servers: list[PolicyServer] = []

    def start() -> PolicyServer:
        servers.append(PolicyServer(small_world.tokenizer))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def policy_server(policy_servers: Callable[[], PolicyServer]) -> PolicyServer:
    return policy_servers()


@contextmanager
def listening(app: Any, port: int = 0) -> Iterator[str]:
    """Serve an application in a thread; yield its host and port. What is under way at the end is cut."""
    import uvicorn

    settings = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=0)
    server, listener = uvicorn.Server(settings), socket.create_server(("127.0.0.1", port), backlog=1024)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


@pytest.fixture
def listen() -> Callable[..., Any]:
    """Return the context manager that serves an application."""
    return listening


@pytest.fixture
def serve_app() -> Iterator[Callable[[Any], str]]:
    """Return a function that serves an application until the test ends, and gives its host and port."""
    with ExitStack() as stack:
        yield lambda app: stack.enter_context(listening(app))
