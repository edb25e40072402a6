"""OpenRLHF's own argument parsers, and the commands the recipes print."""

from __future__ import annotations

import argparse
import functools
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
import typer.main

from cellduality_plugin.cli import app
from cellduality_plugin.files import read_jsonl, write_jsonl
from cellduality_plugin.openrlhf_hooks.doctor.flags import _main_block
from cellduality_plugin.openrlhf_hooks.doctor.machine import KNOWN

ROOT = Path(__file__).parents[2]


@pytest.fixture
def parse_own() -> Callable[[Sequence[str]], str]:
    """Return a function that gives the name of one of our commands; a wrong flag of it fails the test."""

    def parse(command: Sequence[str]) -> str:
        words, found, path = list(command[list(command).index("cellduality") + 1 :]), typer.main.get_command(app), []
        while hasattr(found, "commands"):
            path.append(words.pop(0))
            found = found.commands[path[-1]]
        try:
            found.make_context(path[-1], words)
        except click.ClickException as error:
            raise AssertionError(f"{command}: {error.format_message()}") from error
        return " ".join(path)

    return parse


@pytest.fixture
def parse_trainer(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Sequence[str]], SimpleNamespace]:
    """Return a function that gives what OpenRLHF's `train` would be called with; a wrong flag fails the test."""

    def parse(module: str, flags: Sequence[str]) -> SimpleNamespace:
        found: list[SimpleNamespace] = []
        # Abbreviated flags are spelling mistakes that happen to work until a longer flag is added.
        strict = functools.partialmethod(argparse.ArgumentParser.__init__, allow_abbrev=False)
        with monkeypatch.context() as patch:
            patch.setattr(argparse.ArgumentParser, "__init__", strict)
            patch.setattr(sys, "argv", [module, *flags])
            try:
                exec(_main_block(module), {"__name__": "__main__", "train": found.append})
            except SystemExit as refusal:
                raise AssertionError(f"{module} refuses {shlex.join(flags)}") from refusal
        return found[0]

    return parse


@pytest.fixture
def read_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Any]:
    """Return a function that reads rows the way both trainers do."""
    import datasets
    from openrlhf.datasets.utils import blending_datasets

    from tests.contract.engine import strategy

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return lambda path: blending_datasets(str(path), None, strategy(), 42)


@pytest.fixture(scope="session")
def dry_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[list[str]]]:
    """Return a function that gives the commands a recipe would run, word by word; of one round, unless it is told."""
    run_dir = tmp_path_factory.mktemp("dry") / "a run"
    usual = {"PATH": os.defpath, "PYTHON": sys.executable, "DRY_RUN": "1", "RUN_DIR": str(run_dir), "ROUNDS": "1"}

    @functools.cache
    def printed(*words: str, **variables: str) -> str:
        done = subprocess.run(words, env={**usual, **variables}, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(recipe: str, *arguments: str, **variables: str) -> list[list[str]]:
        lines = printed("bash", str(ROOT / "recipes" / f"{recipe}.sh"), *arguments, **variables).splitlines()
        return [shlex.split(line) for line in lines]

    return run


@pytest.fixture
def prepared(small_world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that makes a run's folder: 512 rows of each kind, and models that are their config alone."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody is there: models of the hub are not at hand

    def prepare(model: str, *names: str) -> Path:
        shutil.copytree(small_world.data, tmp_path / "data", ignore=shutil.ignore_patterns("*.agent.py"))
        for name, copy in (("sft", "sft_traces"), ("rl", "rl_chosen")):
            some = list(read_jsonl(tmp_path / "data" / f"{name}.jsonl"))
            for each in (name, copy):
                write_jsonl(tmp_path / "data" / f"{each}.jsonl", (some * 512)[:512])
        for name in names:
            (tmp_path / name).mkdir()
            (tmp_path / name / "config.json").write_text(json.dumps(KNOWN[model]))
        return tmp_path

    return prepare
