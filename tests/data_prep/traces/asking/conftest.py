"""A real chat server on loopback that does what a test scripts, and questions to ask it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from cellduality_plugin.examples import Example
from cellduality_plugin.policies import addresses
from cellduality_plugin.tasks import get_task
from data_prep.traces.asking.endpoint import EndpointTeacher
from data_prep.traces.questions import Question
from tests.scripted_server import Said, ScriptedServer

KEY = "sk-test-0123456789abcdef"
ANSWER = "<think>CD79A ranks high.</think><answer>B cell</answer>"


def question(number: int) -> Question:
    """Return a question; its prompt holds its number."""
    task = get_task("cell_type_annotation")
    example = Example(task.name, f"toy/{number}", {"cell": ("A", "B")}, {"observed": ("A",)}, ("B",), "B cell")
    return Question(task, "primal", example, 0, "B cell", f"question {number}")


def questions(count: int) -> list[Question]:
    return [question(number) for number in range(count)]


def body(text: Any = ANSWER, **changed: Any) -> bytes:
    """Return the body of a chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 100, "completion_tokens": 20}
    return json.dumps({"id": "1", "choices": [choice], "usage": usage, **changed}).encode()


@dataclass
class Completed(Said):
    """A response; by default a completion."""

    body: bytes = field(default_factory=body)


class ChatServer(ScriptedServer):
    """Says a completion, and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.usual = lambda *asked: Completed()
        self.bodies: list[dict[str, Any]] = []

    @property
    def asked(self) -> list[tuple[str, int]]:
        return [(body["messages"][-1]["content"], body["seed"]) for body in self.bodies]

    def answer(self, path: str, body: dict[str, Any]) -> Said:
        with self.lock:
            self.bodies.append(body)
        return super().answer(path, body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    """A server on a port of its own; who asks it has a key, and loses no time after a failure."""
    monkeypatch.setattr(addresses, "FIRST_REST", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    chat = ChatServer()
    chat.start()
    yield chat
    chat.stop()


@pytest.fixture
def teacher(server: ChatServer) -> EndpointTeacher:
    return EndpointTeacher("toy", server.url, timeout=2.0)
