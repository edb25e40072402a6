"""`cellduality reward-path`; `serve-reward` is tested where the server is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cellduality_plugin.agent_file import packaged_reward_file
from cellduality_plugin.cli import main

ENDPOINT = {"urls": ["http://127.0.0.1:8000/v1"], "model": "toy"}


@pytest.fixture
def printed(monkeypatch, capsys):
    """Return a function that gives what the command prints."""

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["cellduality", "reward-path", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        return told.out if not ended.value.code else told.err

    return run


def test_it_names_the_file_of_the_package(printed):
    assert Path(printed().strip()) == packaged_reward_file()
    assert packaged_reward_file().is_file()


def test_it_writes_one_for_a_configuration(printed, make_config, tmp_path):
    make_config(dual={"endpoint": ENDPOINT})
    file = Path(printed("--config", str(tmp_path / "cellduality.json")).strip())
    assert file == tmp_path / "cellduality.reward.py"
    assert repr(str(tmp_path / "cellduality.json")) in file.read_text()


def test_without_an_endpoint_it_says_how_to_name_one(printed, make_config, tmp_path):
    make_config()
    line = printed("--config", str(tmp_path / "cellduality.json"))
    assert line.startswith("error: no endpoint that plays the dual")
    assert '"endpoint": {"urls":' in line
    assert len(line.splitlines()) == 1
