"""A copy of the recipes in which every command is a stand-in."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def benchmarks(monkeypatch) -> Callable[[str], ModuleType]:
    """Return a function that imports a benchmark as its recipe runs it, with its folder on the path."""
    monkeypatch.syspath_prepend(ROOT / "recipes" / "benchmarks")
    return importlib.import_module


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the recipes, whose own root, runs and virtual environment are all inside it."""
    folder = tmp_path / "the project"
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.fixture
def run(project: Path) -> Run:
    """Return a function that runs a recipe of the copy, with nothing of this process's environment."""

    def run_recipe(name: str, *words: str, profile: str = "cpu", **variables: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", str(project / "recipes" / (name if "." in name else f"{name}.sh")), *words]
        environment = {"PATH": os.defpath, "PYTHON": sys.executable, "HOME": str(project.parent), "PROFILE": profile}
        given = {"env": environment | variables, "cwd": project.parent, "timeout": 300}
        return subprocess.run(command, **given, capture_output=True, text=True)

    return run_recipe


@pytest.fixture
def program(project: Path) -> Callable[..., None]:
    """Return a function that puts a program into the environment of the copy, which writes down how it was called."""

    def put(name: str, text: str = "") -> None:
        path = project / ".venv" / "bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/bash\necho "{name} $*" >>"{project}/calls"\n{text}\n')
        path.chmod(0o755)

    return put


STAGE = """
if [[ -n "${FAILS:-}" && "$*" == *"${FAILS%=*}"* ]]; then exit "${FAILS##*=}"; fi
while (($#)); do
  case "$1" in
    --log) mkdir -p "$(dirname "$2")"; echo "pseudo-labels of a task: 5 of 5 cells" >"$2" ;;
    --ckpt.output_dir) mkdir -p "$2"; echo "$2" >"$2/config.json" ;;
    --ckpt.path | --logger.tensorboard_dir) mkdir -p "$2" ;;
  esac
  shift
done
"""


@pytest.fixture
def installed(project: Path, program) -> Path:
    """The copy with an environment in which every stage succeeds at once, and leaves a model that names its folder.

    With ``FAILS=WORDS=CODE`` what is called with these words ends with this code.
    """
    program("python", STAGE)
    program("cellduality", "echo agent.py")
    return project


@pytest.fixture
def calls(installed: Path) -> Callable[[], str]:
    """Return a function that gives what was called since it was last asked."""

    def told() -> str:
        path = installed / "calls"
        found = path.read_text() if path.exists() else ""
        path.unlink(missing_ok=True)
        return found

    return told


@pytest.fixture
def folder(project: Path) -> Path:
    """Where a run goes."""
    path = project.parent / "a run"
    path.mkdir()
    return path


@pytest.fixture
def dry(run: Run, project: Path) -> Callable[..., str]:
    """Return a function that gives what a recipe would run; it has to succeed and to touch nothing."""

    def content() -> dict[Path, bytes | None]:
        return {path: path.read_bytes() if path.is_file() else None for path in project.parent.rglob("*")}

    def printed(recipe: str, *words: str, **variables: str) -> str:
        before = content()
        done = run(recipe, *words, DRY_RUN="1", **variables)
        assert done.returncode == 0, done.stderr
        assert content() == before
        return done.stdout

    return printed


def value_of(flag: str, words: list[str]) -> str:
    """Return what follows a flag in a command."""
    return words[words.index(flag) + 1]
