"""The command line, run in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from cellduality_plugin import cli


class Ended(NamedTuple):
    """How a command ended: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


def invoke(*words: object) -> str:
    """Run `cellduality` and return what it printed; an error is raised as it is."""
    ended = CliRunner().invoke(cli.app, [*map(str, words)], catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    return ended.stdout


@pytest.fixture
def command(monkeypatch, capsys) -> Callable[..., Ended]:
    """Return a function that runs `cellduality` with some words and says how it ended."""

    def run(*words: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["cellduality", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        return Ended(int(end.value.code or 0), *capsys.readouterr())

    return run
