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

    def run_recipe(
        recipe: str, *arguments: str, profile: str = "cpu", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(project / "recipes" / (recipe if "." in recipe else f"{recipe}.sh")), *arguments],
            env={"PATH": os.defpath, "PYTHON": sys.executable, "HOME": str(project.parent), "PROFILE": profile}
            | variables,
            cwd=project.parent,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run_recipe


@pytest.fixture
def program(project: Path) -> Callable[[str, str], None]:
    """Return a function that puts a program into the environment of the copy."""

    def put(name: str, text: str) -> None:
        path = project / ".venv" / "bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    return put


@pytest.fixture
def installed(project: Path, program) -> Path:
    """The copy with an environment in which every stage succeeds at once, and writes down that it was called."""
    program("python", f'#!/bin/sh\necho "$*" >>"{project}/calls"\n')
    program("cellduality", "#!/bin/sh\necho agent.py\n")
    return project


@pytest.fixture
def calls(installed: Path) -> Callable[[], str]:
    """Return a function that gives what was called since it was last asked."""

    def told() -> str:
        path = installed / "calls"
        found = path.read_text() if path.exists() else ""
        path.write_text("")
        return found

    return told


@pytest.fixture
def dry(run: Run, project: Path) -> Callable[..., str]:
    """Return a function that gives what a recipe would run; it has to succeed and to touch nothing."""

    def content() -> dict[str, bytes | None]:
        return {str(path): path.read_bytes() if path.is_file() else None for path in project.parent.rglob("*")}

    def printed(recipe: str, *arguments: str, **variables: str) -> str:
        before = content()
        done = run(recipe, *arguments, DRY_RUN="1", **variables)
        assert done.returncode == 0, done.stderr
        assert content() == before
        return done.stdout

    return printed
