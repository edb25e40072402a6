"""A real chat server on loopback that does what a test scripts, and questions to ask it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from cellduality_plugin.examples import Example
from cellduality_plugin.policies import addresses
from cellduality_plugin.tasks import get_task
from data_prep.traces.asking.endpoint import EndpointTeacher
from data_prep.traces.questions import Question
from tests.scripted_server import Said

KEY = "sk-test-0123456789abcdef"
ANSWER = "<think>CD79A ranks high.</think><answer>B cell</answer>"


def questions(count: int) -> list[Question]:
    """Return questions whose prompts hold their number."""
    task, parts = get_task("cell_type_annotation"), ({"cell": ("A", "B")}, {"observed": ("A",)}, ("B",), "B cell")
    cells = (Example(task.name, f"toy/{number}", *parts) for number in range(count))
    return [Question(task, "primal", cell, 0, "B cell", f"question {n}") for n, cell in enumerate(cells)]


def body(text: Any = ANSWER, **changed: Any) -> bytes:
    """Return the body of a chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 100, "completion_tokens": 20}
    return json.dumps({"id": "1", "choices": [choice], "usage": usage, **changed}).encode()


@dataclass
class Completed(Said):
    """A response; by default a completion."""

    body: bytes = field(default_factory=body)


@pytest.fixture
def server(policy_server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A chat server; who asks it has a key, and loses no time after a failure."""
    monkeypatch.setattr(addresses, "FIRST_REST", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    policy_server.usual = lambda *asked: Completed()
    return policy_server


@pytest.fixture
def teacher(server: Any) -> EndpointTeacher:
    return EndpointTeacher("toy", server.url, timeout=2.0)
