"""A real chat server on loopback that does what a test scripts, and questions to ask it."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from cellduality_plugin.examples import Example
from cellduality_plugin.tasks import get_task
from data_prep.traces.asking.endpoint import EndpointTeacher
from data_prep.traces.questions import Question

KEY = "sk-test-0123456789abcdef"
ANSWER = "<think>CD79A ranks high.</think><answer>B cell</answer>"


def completion(text: Any = ANSWER, **changed: Any) -> bytes:
    """Return the body of a chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    body = {"id": "1", "object": "chat.completion", "choices": [choice]}
    return json.dumps({**body, "usage": {"prompt_tokens": 100, "completion_tokens": 20}, **changed}).encode()


@dataclass
class Said:
    """One response: its status, body and headers, after how long; or a cut connection."""

    status: int = 200
    body: bytes = field(default_factory=completion)
    headers: dict[str, str] = field(default_factory=dict)
    after: float = 0.0
    cut: bool = False


@dataclass
class ChatServer:
    """What it was asked, when, and what it answers: the next of ``script``, or else what ``usual`` returns."""

    url: str = ""
    script: list[Said] = field(default_factory=list)
    usual: Callable[[dict[str, Any]], Said] = lambda body: Said()
    asked: list[tuple[str, int]] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    headers: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def receive(self, body: dict[str, Any], key: str) -> Said:
        with self.lock:
            self.moments.append(time.monotonic())
            self.bodies.append(body)
            self.keys.add(key)
            self.asked.append((body["messages"][-1]["content"], body["seed"]))
            return self.script.pop(0) if self.script else self.usual(body)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    """A server on a port of its own."""
    chat = ChatServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            chat.headers |= {name.lower() for name in self.headers}
            said = chat.receive(body, self.headers["authorization"])
            time.sleep(said.after)
            if said.cut:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            try:
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
        request_queue_size = 128

    http = Server(("127.0.0.1", 0), Handler)
    chat.url = f"http://127.0.0.1:{http.server_port}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield chat
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return KEY


@pytest.fixture
def teacher(server: ChatServer, key: str) -> EndpointTeacher:
    """A teacher that loses no time."""
    return EndpointTeacher("toy", server.url, timeout=2.0, retries=3, backoff=0.01)


def question(number: int) -> Question:
    """Return a question; its prompt tells its number."""
    task = get_task("cell_type_annotation")
    example = Example(task.name, f"toy/{number}", {"cell": ("A", "B")}, {"observed": ("A",)}, ("B",), "B cell")
    return Question(task, "primal", example, 0, "B cell", f"question {number}")


@pytest.fixture
def questions() -> Callable[[int], list[Question]]:
    return lambda count: [question(number) for number in range(count)]


@pytest.fixture
def said() -> type[Said]:
    return Said


@pytest.fixture
def body() -> Callable[..., bytes]:
    return completion
