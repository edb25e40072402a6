"""A Ray cluster as its dashboard tells of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.scripted_server import Said, ScriptedServer

PAIR = ({"strategy": "PACK", "bundles": [({"GPU": 1.0, "CPU": 1.0}, 2)]}, 1)
"""A placement group for two ranks that waits."""


@pytest.fixture(scope="session")
def ray_report() -> Callable[..., str]:
    """Return a function that gives Ray's own words for a usage and demands, as `ray status` joins them."""
    from ray.autoscaler._private.util import get_demand_report, get_usage_report

    def words(usage: dict[str, tuple[float, float]], groups: Any = (), actors: Any = ()) -> str:
        summary: Any = SimpleNamespace(usage=usage, pg_demand=list(groups), resource_demand=list(actors))
        return f"Total Usage:\n{get_usage_report(summary, False)}\nPending Demands:\n{get_demand_report(summary)}"

    return words


@pytest.fixture
def dashboard(ray_report) -> Iterator[Callable[..., str]]:
    """Return a function that starts a server which tells of a cluster as a dashboard does, and gives its address."""
    servers = []

    def serve(*told: Any, **more: Any) -> str:
        status = {"data": {"clusterStatus": ray_report(*told, **more) if told else None}}
        servers.append(ScriptedServer())
        servers[-1].usual = lambda path, body: (
            Said(body=json.dumps(status).encode()) if path == "/api/cluster_status?format=1" else Said(404)
        )
        servers[-1].start()
        return servers[-1].url.removesuffix("/v1")

    yield serve
    for server in servers:
        server.stop()
