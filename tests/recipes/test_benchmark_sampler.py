"""The benchmark of the sampler, on a few requests."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_short_run_counts_every_request_on_both_sides(tmp_path):
    command = [sys.executable, "-W", "ignore", str(ROOT / "recipes" / "benchmarks" / "sampler.py"), "all"]
    command += ["--out", str(tmp_path), "--requests", "80", "--concurrency", "4", "--delay", "0.02", "--strict", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    (run,) = json.loads((tmp_path / "sampler.json").read_text())["runs"]
    assert run["each_once"]
    assert run["requests"] == 80
    assert 0 < run["share"] <= 1.0  # no server answers faster than it does
    assert "200/s at most" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["sampler.json"]
