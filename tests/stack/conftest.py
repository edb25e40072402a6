"""One small run made by the real recipes, shared by all tests of the stack, and what it takes to watch a run."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# The smallest run that still has several steps, two updates a step, and both kinds of task.
SMALL = {
    "PROFILE": "cpu",
    "VENV": sys.prefix,
    "N_LABELLED": "60",
    "N_RL": "24",
    "TOP_GENES": "24",
    "MAX_LEN": "128",
    "MAX_NEW_TOKENS": "40",
    "SFT_EPOCHS": "1",
    "ROLLOUT_BATCH": "8",
    "GROUP_SIZE": "4",
    "TRAIN_BATCH": "16",
    "MICRO_BATCH": "8",
    "SAVE_STEPS": "1",
}
ROLLOUTS_A_STEP = 8 * 4


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
        self.began = time.monotonic()
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
        """Return the log of a stage, empty before there is one."""
        path = self.folder / "logs" / f"{name}.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

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
def living() -> Callable[[Path], list[str]]:
    """Return the function that lists the living processes of a run."""
    return processes_of


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory, recipe) -> Run:
    """The one-command pipeline from nothing to the report; SFT and data serve the other tests too."""
    run = recipe(tmp_path_factory.mktemp("whole") / "run", "grpo_duality.sh")
    code = run.end(timeout=600)
    assert code == 0, run.printed
    return run


@pytest.fixture
def prepared(whole_run, tmp_path) -> Path:
    """A new run folder with the data and the SFT model of the shared run."""
    folder = tmp_path / "run"
    for part in ("data", "sft"):
        shutil.copytree(whole_run.folder / part, folder / part)
    return folder


@pytest.fixture(scope="session")
def scalars() -> Callable[[Path], dict[str, list[float]]]:
    """Return a function that reads every scalar of the TensorBoard events below a folder, by name without ``train/``."""
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
