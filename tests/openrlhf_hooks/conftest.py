"""A Ray cluster as its dashboard shows it, and rollouts as OpenRLHF posts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cellduality_plugin.openrlhf_hooks.cpu import launch
from cellduality_plugin.tasks import TASKS
from tests.scripted_server import Said, ScriptedServer
from tests.stack.score_in_engine import asked

PAIR = ({"strategy": "PACK", "bundles": [({"GPU": 1.0, "CPU": 1.0}, 2)]}, 1)
"""A placement group for two ranks that waits."""
SITE, ROOT = Path(launch.__file__).parent / "site", Path(launch.__file__).parents[3]


def run_python(code: str, *folders: Path, **variables: str) -> list[str]:
    """Return the words that the code prints in a process of its own, with these folders to import from."""
    environment = {**os.environ, **variables, "PYTHONPATH": os.pathsep.join(map(str, [*folders, ROOT]))}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    return done.stdout.split() or [done.stderr]


@pytest.fixture(scope="session")
def ray_report() -> Callable[..., str]:
    """Return a function that gives Ray's own words for a usage and demands, as `ray status` joins them."""
    from ray.autoscaler._private.util import get_demand_report, get_usage_report

    def words(usage: dict[str, tuple[float, float]], groups: Any = (), actors: Any = ()) -> str:
        summary: Any = SimpleNamespace(usage=usage, pg_demand=list(groups), resource_demand=list(actors))
        return f"Total Usage:\n{get_usage_report(summary, False)}\nPending Demands:\n{get_demand_report(summary)}"

    return words


@pytest.fixture
def scripted() -> Iterator[Callable[..., str]]:
    """Return a function that starts a server which says what it is told of a path and a body, and gives its address."""
    servers = []

    def start(usual: Callable[[str, Any], Said]) -> str:
        servers.append(ScriptedServer())
        servers[-1].usual = usual
        servers[-1].start()
        return servers[-1].url.removesuffix("/v1")

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def dashboard(ray_report, scripted) -> Callable[..., str]:
    """Return a function that starts a server which tells of a cluster as a dashboard does, and gives its address."""

    def serve(*usage: Any, **more: Any) -> str:
        status = {"data": {"clusterStatus": ray_report(*usage, **more) if usage else None}}
        told = {"/api/cluster_status?format=1": Said(body=json.dumps(status).encode())}
        return scripted(lambda path, _: told.get(path, Said(404)))

    return serve


@pytest.fixture
def posted(cell, vocabulary, small_world) -> Callable[..., dict[str, list[str]]]:
    """Return a function that gives what OpenRLHF posts for answers to the question of a task."""

    def make(name: str, *answers: Any, row: int = 0) -> dict[str, list[str]]:
        task, tokenizer = TASKS[name], small_world.tokenizer
        example = task.example(cell, hidden=0.25, labelled=True, rng=np.random.default_rng(row))
        prompt, _ = asked(tokenizer, task.primal_prompt(example.inputs, vocabulary))
        texts = [task.answer_response(value) if value != "" else "" for value in answers or (example.gold,)]
        return {
            "query": [prompt + text + tokenizer.eos_token for text in texts],
            "prompts": [prompt] * len(texts),
            "labels": [example.to_label()] * len(texts),
        }

    return make
