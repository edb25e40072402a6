"""The benchmark of the reward server, for a few seconds and without a word on speed."""

from __future__ import annotations

import asyncio

import pytest

from cellduality_plugin.config import Config
from cellduality_plugin.openrlhf_hooks.remote.server import Limits, RewardServer
from cellduality_plugin.openrlhf_hooks.remote.serving import open_judge, with_endpoint


@pytest.fixture
def benchmark(benchmarks):
    return benchmarks("server")


@pytest.fixture
def under_load(benchmark, tmp_path, serve_app):
    """Return a function that loads a server with little or much room, and gives what the clients saw."""
    config, model = benchmark.prepare(tmp_path, rows=40)
    posted = benchmark.rollouts(config, model)

    def run(limits: Limits, *, delay: float, clients: int, seconds: float) -> dict:
        with benchmark.lean_server(benchmark.answer, delay) as (url, _):
            settings = with_endpoint(Config.load(config), urls=(url,), model="toy", tokenizer=str(model))
            server = RewardServer(*open_judge(settings), benchmark.TOKEN, limits)
            found = asyncio.run(benchmark.load(f"http://{serve_app(server.app)}/", posted, clients, seconds))
        found["swapped"] = asyncio.run(benchmark.swapped(found, posted, config, model))
        return found

    return run


def test_64_clients_for_3_seconds_lose_and_swap_nothing(under_load):
    found = under_load(Limits(), delay=0.01, clients=64, seconds=3.0)
    assert found["answered"] > 64
    assert (found["lost"], found["wrong_code"], found["swapped"]) == (0, 0, 0)
    assert found["distinct_rewards"] > 20  # an answer that was swapped would have shown
    assert set(found["codes"]) == {"200", "400"}
    assert found["rewards_counted"] == found["answered"]
    assert found["dual_requests"] < found["answered"]


def test_what_is_past_the_bound_is_refused_and_the_rest_is_right(under_load):
    found = under_load(Limits(at_once=2, waiting=2), delay=0.2, clients=16, seconds=1.0)
    assert found["codes"]["429"] > 0
    assert found["answered"] > 0
    assert (found["lost"], found["wrong_code"], found["swapped"]) == (0, 0, 0)
