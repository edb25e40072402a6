"""`cellduality reward-path`; `serve-reward` is tested where the server is."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellduality_plugin.agent_file import bound_client_file, bound_reward_file, packaged_reward_file
from cellduality_plugin.errors import CellDualityError
from tests.refused import refused

ENDPOINT = {"urls": ["http://127.0.0.1:8000/v1"], "model": "toy"}


@pytest.fixture
def printed(command):
    """Return a function that gives what the command prints."""
    return lambda *words: "".join(command("reward-path", *words)[1:])


def test_it_names_the_file_of_the_package(printed):
    assert Path(printed().strip()) == packaged_reward_file()
    assert packaged_reward_file().is_file()
    assert printed("--server", "http://a:5000/").count("\n") == 1, (
        "servers without a configuration: no place for a file"
    )


def test_it_writes_one_for_a_configuration_or_for_servers(printed, make_config, tmp_path):
    make_config(dual={"endpoint": ENDPOINT})
    config = str(tmp_path / "cellduality.json")
    file = Path(printed("--config", config).strip())
    assert file == tmp_path / "cellduality.reward.py"
    assert repr(config) in file.read_text()
    file = Path(printed("--config", config, "--server", "http://a:5000/", "--server", "https://b/").strip())
    assert file == tmp_path / "cellduality.servers.py"
    assert repr(["http://a:5000/", "https://b/"]) in file.read_text()


def test_without_an_endpoint_or_an_address_that_can_be_written_down_there_is_none(make_config, tmp_path):
    make_config()
    config = tmp_path / "cellduality.json"
    with refused("no-endpoint"):
        bound_reward_file(config)
    with refused("token-in-address") as error:
        bound_client_file(config, ["http://any:a-secret@a:5000/"])
    assert "a-secret" not in str(error.value)
    with pytest.raises(CellDualityError, match="'a:5000'"):
        bound_client_file(config, ["a:5000"])
    assert not list(tmp_path.glob("*.py"))
