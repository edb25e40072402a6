"""The reward functions, called from many threads as OpenRLHF calls them: one that judges, one that asks servers."""

from __future__ import annotations

import importlib.util
import json
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cellduality_plugin.agent_file import REWARD_FILE, bound_reward_file
from cellduality_plugin.config import PATH_VARIABLE
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.openrlhf_hooks.remote.protocol import TOKEN_VARIABLE
from cellduality_plugin.openrlhf_hooks.reward_client import RewardClient
from cellduality_plugin.openrlhf_hooks.reward_func import RewardFunction
from tests.refused import refused
from tests.scripted_server import Said

TYPE = "cell_type_annotation"
ROLLOUT = {"query": ["query"], "prompts": ["prompt"], "labels": ["label"]}
REPLY = b'{"rewards": 0.5, "scores": 0.5, "extra_logs": {"dual_reward": 0.5}}'


@pytest.fixture
def config_path(make_config, policy_server, small_world, tmp_path):
    endpoint = {"urls": [policy_server.url], "model": "toy", "tokenizer": str(small_world.model)}
    make_config(tasks={TYPE: {"pair": TYPE, "reward": "likelihood"}}, dual={"endpoint": endpoint})
    return tmp_path / "cellduality.json"


@pytest.fixture
def reward_func(config_path):
    function = RewardFunction(config_path)
    yield function
    function.close()


@pytest.fixture
def rollout(posted) -> Callable[..., tuple[list[str], ...]]:
    """Return a function that gives (queries, prompts, labels) of answers to one question."""
    return lambda *answers: tuple(posted(TYPE, *answers).values())


def test_threads_share_their_dual_calls(reward_func, rollout, policy_server):
    policy_server.after = 0.1
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda answer: reward_func(*rollout(answer)), ["T", "CD19+ B"] * 4))
    assert len(policy_server.asked) == 2
    assert all(reply["rewards"] == reply["scores"] > 0.0 for reply in found)


def test_a_row_that_is_none_is_logged_before_openrlhf_swallows_it(reward_func, rollout, caplog):
    query, prompt, _ = rollout("T")
    with pytest.raises(CellDualityError):
        reward_func(query, prompt, ["{}"])
    assert "no reward: " in caplog.text
    assert caplog.records[-1].levelname == "ERROR"


def test_the_files_name_the_function(config_path, monkeypatch):
    monkeypatch.setenv(PATH_VARIABLE, str(config_path))
    for path in (REWARD_FILE, bound_reward_file(config_path)):
        spec = importlib.util.spec_from_file_location("reward_func", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        function = module.reward_func
        assert isinstance(function, RewardFunction)
        function.close()


@pytest.fixture
def server(scripted) -> Callable[..., tuple[str, list[Any]]]:
    """Return a function that starts a reward server with one reply, and gives its address and what it was sent."""

    def make(reply: bytes = REPLY, status: int = 200, after: float = 0.0) -> tuple[str, list[Any]]:
        sent: list[Any] = []
        return scripted(lambda _, body: sent.append(body) or Said(status, reply, after=after)) + "/", sent

    return make


@pytest.fixture
def call(monkeypatch) -> Callable[..., list[dict[str, Any]]]:
    """Return a function that gives the replies to so many rollouts, asked about by six threads."""
    monkeypatch.setenv(TOKEN_VARIABLE, "a-token-of-some-length")

    def ask(urls: list[str], times: int = 1, **settings: Any) -> list[dict[str, Any]]:
        client = RewardClient(urls, **settings)
        try:
            with ThreadPoolExecutor(6) as pool:
                return list(pool.map(lambda _: client(*ROLLOUT.values()), range(times)))
        finally:
            client.close()

    return ask


def test_a_client_sends_what_openrlhf_sends_and_a_slow_server_gets_few_rollouts(server, call):
    (fast, by_fast), (slow, by_slow) = server(), server(after=1.0)
    assert call([slow, fast], times=60) == [json.loads(REPLY)] * 60
    assert by_fast[0] == ROLLOUT
    assert len(by_fast) + len(by_slow) == 60
    assert 0 < len(by_slow) < 20


@pytest.mark.parametrize(
    ("status", "reply", "code"),
    [
        (401, b"{}", "server-refused"),
        (400, b"{}", "server-refused"),
        (200, REPLY.replace(b"0.5", b"null"), "malformed-reply"),
    ],
)
def test_what_asking_again_does_not_mend_is_said_at_once(status, reply, code, server, call, caplog):
    url, sent = server(reply, status)
    with refused(code) as error:
        call([url])
    assert ("CELLDUALITY_TOKEN" in error.value.hint) == (status == 401)
    assert len(sent) == 1
    assert "no reward: a server" in caplog.text


def test_patience_ends_and_without_a_token_a_client_does_not_begin(call, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        gone = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    began = time.monotonic()
    with refused("no-server"):
        call([gone], patience=0.7)
    assert 0.7 <= time.monotonic() - began < 5.0
    monkeypatch.delenv(TOKEN_VARIABLE)
    with pytest.raises(CellDualityError, match=TOKEN_VARIABLE):
        call([gone])
