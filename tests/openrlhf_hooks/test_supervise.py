"""The supervisor with real processes: lock, exit codes, log, progress, failures shown, and nothing left behind.

What is read of a Ray cluster is from the report that the installed Ray writes.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cellduality_plugin.openrlhf_hooks import supervise
from cellduality_plugin.openrlhf_hooks.cluster import Cluster, address_of
from tests.openrlhf_hooks.conftest import PAIR

ROOT = Path(supervise.__file__).parents[2]

# Leaves a child in a session of its own and a double-forked daemon behind, prints their ids, and sleeps.
FUGITIVES = """
import os, signal, subprocess, sys, time
sleeper = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGINT, " \
          "signal.SIG_IGN); time.sleep(300)"
own_session = subprocess.Popen([sys.executable, "-c", sleeper], start_new_session=True).pid
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(write, str(os.getpid()).encode())
        os.execv(sys.executable, [sys.executable, "-c", sleeper])
    os._exit(0)
os.wait()
print("pids", os.getpid(), own_session, os.read(read, 20).decode(), flush=True)
if len(sys.argv) > 1: sys.exit(int(sys.argv[1]))
time.sleep(300)
"""


def start(run_dir: Path, *words: str, **variables: str) -> subprocess.Popen[str]:
    environment = {key: value for key, value in os.environ.items() if key != supervise.LOCK_VARIABLE}
    environment |= {"PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-m", supervise.__name__, "--run-dir", str(run_dir), "--stage", "toy", "--", *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(run_dir: Path, *words: str, **variables: str) -> tuple[int, str]:
    process = start(run_dir, *words, **variables)
    output, _ = process.communicate(timeout=60)
    return process.returncode, output


def end(process: subprocess.Popen[str], number: int) -> tuple[int, str]:
    process.send_signal(number)
    output, _ = process.communicate(timeout=40)
    return process.returncode, output


def wait_for(path: Path, pattern: str) -> re.Match[str]:
    for _ in range(300):
        if found := re.search(pattern, path.read_text() if path.exists() else ""):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{pattern} never came in {path}")


def python(code: str) -> tuple[str, str, str]:
    return sys.executable, "-c", code


def test_the_log_holds_every_byte_and_death_by_signal_has_the_exit_code_of_a_shell(tmp_path):
    code = "import os, sys\nfor i in range(20000): print('line', i)\nsys.stdout.flush()\n"
    code += "sys.stderr.write('bar\\rbar2\\xe9'); sys.stderr.flush(); os.kill(os.getpid(), 9)"
    code, output = run(tmp_path, *python(code))
    assert code == 137
    assert "ran out of memory, or a process was killed" in output
    logged = (tmp_path / "toy.log").read_bytes().decode()
    assert [line for line in logged.split("\n") if line.startswith("line")] == [f"line {i}" for i in range(20000)]
    assert "bar\rbar2é" in logged


def test_a_second_run_adds_to_the_log_and_only_progress_is_shown(tmp_path):
    assert run(tmp_path, *python("print('first'); raise SystemExit(42)"))[0] == 42
    _, output = run(tmp_path, *python("print('second')"))
    assert (tmp_path / "toy.log").read_text() == "first\nsecond\n"
    assert re.fullmatch(r"\[toy\] 0:0\d, done \(starting\)\n", output)


def test_a_command_that_does_not_exist_and_a_full_disk_under_the_log_are_one_line(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "toy.log").symlink_to("/dev/full")
    for folder, words, said in (
        ("", ["no-such-command-anywhere"], "no-such-command-anywhere"),
        ("full", python("print('x'); import time; time.sleep(300)"), "No space left"),
    ):
        code, output = run(tmp_path / folder, *words)
        assert (code, output.count("\n"), said in output) == (supervise.EXIT_LOG, 1, True)


def test_alarms_are_shown_once_with_what_to_do_and_kept(tmp_path):
    line = "✨ Global step {}: {{'reward': 0.5, 'dual_truncated': {}, 'dual_validity': 0.75}}"
    lines = [line.format(step, 0.05 if step < 4 else 0.9) for step in range(1, 12)]
    code, output = run(tmp_path, *python(f"for line in {lines!r}: print(line)"))
    assert code == 0
    assert output.count("[toy] ALARM truncation at step 8: 0.90 of the rollouts") == 1
    [row] = map(json.loads, (tmp_path / "alarms.jsonl").read_text().splitlines())
    assert (row["stage"], row["name"], row["step"]) == ("toy", "truncation", 8)
    assert "ALARM" not in (tmp_path / "toy.log").read_text(), "the log is what the command wrote"


def test_a_second_run_ends_at_once_and_names_the_first(tmp_path):
    first = start(tmp_path, *python("print('begun', flush=True); import time; time.sleep(300)"))
    wait_for(tmp_path / "toy.log", "begun")
    began = time.monotonic()
    code, output = run(tmp_path, *python("print('never')"))
    assert (code, output.count("\n")) == (supervise.EXIT_LOCKED, 1)
    assert f"process {first.pid} since 20" in output
    assert time.monotonic() - began < 20
    other = {supervise.LOCK_VARIABLE: str(tmp_path / "another folder")}
    assert run(tmp_path, "true", **other)[0] == supervise.EXIT_LOCKED
    assert end(first, signal.SIGINT)[0] == 130


def test_a_stage_inside_a_locked_recipe_runs(tmp_path):
    words = [sys.executable, "-m", supervise.__name__, "--run-dir", str(tmp_path), "--stage", "inner", "--"]
    assert run(tmp_path, *words, *python("raise SystemExit(3)"))[0] == 3
    assert "inner" in (tmp_path / "toy.log").read_text()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (None, 5)])
def test_fugitives_die_with_the_run(number, code, tmp_path):
    process = start(tmp_path, *python(FUGITIVES), *([] if number else ["5"]))
    pids = [int(pid) for pid in wait_for(tmp_path / "toy.log", r"pids (\d+) (\d+) (\d+)\n").groups()]
    assert number is None or all(psutil.pid_exists(pid) for pid in pids)
    ended, output = end(process, number or 0)
    assert (ended, "nothing is left running" in output) == (code, number is not None)
    for pid in pids:
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, pid


def test_a_second_signal_means_at_once(tmp_path):
    code = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('up', flush=True); "
    process = start(tmp_path, *python(code + "time.sleep(300)"))
    wait_for(tmp_path / "toy.log", "up")
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert end(process, signal.SIGINT)[0] == 130
    assert time.monotonic() - began < supervise._PATIENCE


def test_a_trainer_that_waits_for_a_dead_actor_is_ended(tmp_path):
    died = "Exception raised in creation task: The actor died because of an error raised in its creation task"
    waits = f"print('ValueError: no engine')\nprint({died!r}, flush=True)\nimport time; time.sleep(300)"
    arguments = ["--run-dir", str(tmp_path), "--stage", "toy", "--", *python(waits)]
    code = f"import sys, {supervise.__name__} as it; it._GRACE = 0.5; sys.exit(it.main({arguments!r}))"
    done = subprocess.run(python(code), capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 1
    assert "ValueError: no engine" in done.stdout


@pytest.mark.parametrize(
    ("seconds", "line", "waiting", "ends"),
    [(300, "", True, 1), (0, "(RolloutRayActor pid=7) INFO vllm", True, 0), (2, "no worker has spoken", False, 0)],
)
def test_a_trainer_that_ray_lets_wait_for_cards_ends_and_says_what_is_there(
    seconds, line, waiting, ends, tmp_path, dashboard
):
    """Not one that has its cards, or whose cluster lets nobody wait."""
    there = "2026-01-01 10:00:00,000\\tINFO worker.py:2014 -- Connected to Ray cluster."
    waits = f"import time; print('{there}', flush=True); time.sleep({seconds}); print({line!r}, flush=True)"
    address = dashboard({"CPU": (0.0, 4.0), "GPU": (0.0, 1.0)}, groups=[PAIR] if waiting else [])
    began, variables = time.monotonic(), {"RAY_ADDRESS": address, "CELLDUALITY_PLACEMENT_SECONDS": "1"}
    code, output = run(tmp_path, *python(f"{waits}; time.sleep(3)"), **variables)
    assert code == ends
    assert time.monotonic() - began < 30
    said = "asked for {'GPU': 1.0, 'CPU': 1.0} * 2 (PACK); there is 4 of 4 CPU free, 1 of 1 GPU free"
    assert (said in output.splitlines()[-1]) == bool(ends)


@pytest.mark.parametrize("works", [True, False])
def test_a_stopped_run_stops_the_job_it_submitted_or_says_how(works: bool, tmp_path: Path) -> None:
    ray = tmp_path / "ray"
    ray.write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/calls\n[ "$2" = submit ] && sleep 300\nexit {int(not works)}\n')
    ray.chmod(0o755)
    words = ["ray", "job", "submit", "--address", "http://head:1", "--submission-id", "mine", "--", "python"]
    process = start(tmp_path / "run", *words, PATH=f"{tmp_path}:{os.environ['PATH']}")
    wait_for(tmp_path / "calls", "submit")
    _, output = end(process, signal.SIGINT)
    assert (tmp_path / "calls").read_text().splitlines()[1] == "job stop --address http://head:1 mine"
    assert ("stopped the job mine" in output, "ray job stop --address" in output) == (works, not works)


def test_what_there_is_what_is_free_and_what_waits(ray_report):
    read = Cluster.read(ray_report({"CPU": (0.0, 4.0), "GPU": (0.0, 1.0), "memory": (0.0, 1e9)}, groups=[PAIR]))
    assert read == Cluster({"CPU": 4, "GPU": 1}, {"CPU": 4, "GPU": 1}, ("{'GPU': 1.0, 'CPU': 1.0} * 2 (PACK)",))
    assert str(read) == "4 of 4 CPU free, 1 of 1 GPU free"
    read = Cluster.read(ray_report({"CPU": (1.0, 4.0), "GPU": (1.0, 1.0)}, actors=[({"GPU": 1.0}, 2), ({"CPU": 1}, 1)]))
    assert read.waiting == ("{'GPU': 1.0}",), "cards are what a run waits for"
    assert read.free == {"CPU": 3, "GPU": 0}
    reserved = {"GPU_group_0_0123456789abcdef0123456789abcdef0123": (0.2, 1.0)}
    read = Cluster.read(ray_report({"CPU": (0.0, 4.0), "GPU": (2.0, 4.0), **reserved}))
    assert (read.free["GPU"], read.waiting) == (pytest.approx(2), ()), "reserved, though little runs there"
    for text in ("", "No cluster status. It may take a few seconds for the services to start.", "0/1"):
        assert Cluster.read(text) is None


def test_the_address_is_the_jobs_before_the_environments_before_that_of_what_was_started():
    submit, environment = ["ray", "job", "submit", "--address=http://a:1", "--"], {"RAY_ADDRESS": "b:2"}
    started = [["r"], ["log_monitor", "--gcs-address=c:3"]]
    assert address_of(submit, environment, started) == "http://a:1"
    assert address_of(["python"], environment, started) == "b:2"
    assert [address_of(["python"], {}, lines) for lines in (started, [["r"]])] == ["c:3", ""]
