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


def test_it_writes_one_that_asks_servers(printed, make_config, tmp_path):
    make_config()
    servers = ["http://a:5000/", "https://b/"]
    flags = [word for server in servers for word in ("--server", server)]
    file = Path(printed("--config", str(tmp_path / "cellduality.json"), *flags).strip())
    assert file == tmp_path / "cellduality.servers.py"
    assert repr(servers) in file.read_text()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--server", "http://any:a-secret@a:5000/"], "error: the address of a reward server holds its token"),
        (["--server", "a:5000"], "error: 'a:5000' is no http address"),
    ],
)
def test_an_address_that_cannot_be_written_down_is_refused(flags, expected, printed, make_config, tmp_path):
    make_config()
    line = printed("--config", str(tmp_path / "cellduality.json"), *flags)
    assert line.startswith(expected)
    assert "a-secret" not in line
    assert not (tmp_path / "cellduality.servers.py").exists()


def test_servers_without_a_configuration_have_no_place_for_the_file(printed):
    assert printed("--server", "http://a:5000/").startswith("error: no place for the file that asks the servers")
