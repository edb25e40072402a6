"""The benchmarks at toy sizes, without a word on speed: that they measure what they say."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import h5py
import pytest

from cellduality_plugin.config import Config
from cellduality_plugin.openrlhf_hooks.remote.judge import open_judge, with_endpoint
from cellduality_plugin.openrlhf_hooks.remote.server import RewardServer

ROOT = Path(__file__).parents[2]

# cell2sentence's function as it works, for where the package itself is not installed: one cell after the other.
STAND_IN = """
import numpy as np
from sklearn.utils import shuffle
def generate_sentences(adata, vocab, delimiter=" ", random_state=42):
    np.random.seed(random_state)
    names, sentences = list(vocab), []
    for row in adata.X:
        columns, values = shuffle(row.indices, row.data)
        sentences.append(delimiter.join(names[column] for column in columns[np.argsort(-values, kind="stable")]))
    return sentences
"""


def measured(name: str, words: str, out: Path, *path: Path) -> tuple[str, dict]:
    """Return what a benchmark prints, and what it writes."""
    command = [sys.executable, "-W", "ignore", ROOT / f"recipes/benchmarks/{name}.py", "--out", out, *words.split()]
    environment = {**os.environ, "PYTHONPATH": ":".join(map(str, (ROOT, *path))), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "--strict", "0"], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in out.iterdir()] == [f"{name}.json"]
    return done.stdout, json.loads((out / f"{name}.json").read_text())


class TestCells:
    def test_sentences_that_differ_are_noticed_with_and_without_ties(self, benchmarks, monkeypatch):
        peer = ModuleType("cell2sentence.utils")
        exec(STAND_IN.replace("-values", "values"), vars(peer))
        monkeypatch.setitem(sys.modules, "cell2sentence", ModuleType("cell2sentence"))
        monkeypatch.setitem(sys.modules, peer.__name__, peer)
        assert benchmarks("cells").equality(300, 30) == {"without ties": False, "with ties": False, "cells": 200}

    def test_a_file_is_written_block_by_block(self, benchmarks, tmp_path):
        path = tmp_path / "atlas.h5ad"
        benchmarks("cells").generate(path, 5000, 400, 20)
        with h5py.File(path) as file:
            assert file["X/data"].shape == (5000 * 20,)
            assert file["X/data"][:].min() >= 1
            assert file["X/indices"][:].max() < 400

    def test_everything_is_measured_and_the_large_file_goes(self, tmp_path):
        out, peer = tmp_path / "bench", tmp_path / "peer"
        out.mkdir()
        (peer / "cell2sentence").mkdir(parents=True)
        (peer / "cell2sentence" / "utils.py").write_text(STAND_IN)
        words = "--sizes 30 --genes 300 --per-cell 30 --file-cells 500 --file-genes 400 --file-density 0.05"
        printed, found = measured("cells", words, out, peer)
        assert [(size["cells"], size["non_zeros"]) for size in found["sizes"]] == [(30, 900)]
        assert (found["file"]["cells"], found["file"]["non_zeros"]) == (500, 500 * 20)
        assert 50 < found["file"]["peak_mb"] < 2000
        assert found["equal"] == {"without ties": True, "with ties": True, "cells": 200}
        for word in ("cell2sentence", "ours, the first 64 genes", "under 2 GB: yes"):
            assert word in printed


def test_the_sampler_counts_every_request_on_both_sides(tmp_path):
    printed, found = measured("sampler", "--requests 80 --concurrency 4 --delay 0.02", tmp_path)
    [run] = found["runs"]
    assert run["each_once"]
    assert run["requests"] == 80
    assert 0 < run["share"] <= 1.0  # no server answers faster than it does
    assert "200/s at most" in printed


class TestServer:
    @pytest.fixture
    def under_load(self, benchmarks, tmp_path, serve_app):
        """Return a function that loads a server with little or much room, and gives what the clients saw."""
        benchmark = benchmarks("server")
        config, model = benchmark.prepare(tmp_path, rows=40)
        posted = benchmark.rollouts(config, model)

        def run(*, delay: float, clients: int, seconds: float, **room: int) -> dict:
            with benchmark.lean_server(benchmark.answer, delay) as (url, _):
                settings = with_endpoint(Config.load(config), urls=(url,), model="toy", tokenizer=str(model))
                server = RewardServer(*open_judge(settings), benchmark.TOKEN, **room)
                found = asyncio.run(benchmark.load(f"http://{serve_app(server.app)}/", posted, clients, seconds))
            found["swapped"] = asyncio.run(benchmark.swapped(found, posted, config, model))
            assert (found["lost"], found["wrong_code"], found["swapped"]) == (0, 0, 0)
            return found

        return run

    def test_64_clients_for_3_seconds_lose_and_swap_nothing(self, under_load):
        found = under_load(delay=0.01, clients=64, seconds=3.0)
        assert found["answered"] > 60  # one for each client, were the machine so busy; one in fifty is malformed
        assert found["distinct_rewards"] > 20  # an answer that was swapped would have shown
        assert set(found["codes"]) == {200, 400}
        assert found["rewards_counted"] == found["answered"]
        assert found["dual_requests"] < found["answered"]

    def test_what_is_past_the_bound_is_refused_and_the_rest_is_right(self, under_load):
        found = under_load(delay=0.2, clients=16, seconds=1.0, at_once=2, waiting=2)
        assert found["codes"][429] > 0
        assert found["answered"] > 0
