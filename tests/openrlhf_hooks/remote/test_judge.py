"""From what OpenRLHF posts of a rollout, or what is no request, to the score the agent would give it; who may ask."""

from __future__ import annotations

import asyncio
import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellduality_plugin.openrlhf_hooks.remote import protocol
from cellduality_plugin.openrlhf_hooks.remote.judge import Judge, response_in, with_endpoint
from cellduality_plugin.openrlhf_hooks.remote.protocol import TOKEN_VARIABLE, Malformed, allowed, find_token
from cellduality_plugin.policies.base import PolicyError
from tests.play import Saying
from tests.refused import refused

TYPE = "cell_type_annotation"


def scripted(*failures: str) -> Saying:
    """Return a policy that finds everything certain, once it has failed so."""
    left = list(failures)

    def likely(*_: str) -> float:
        if left:
            raise PolicyError(left.pop(0))
        return 0.0

    return Saying(log_prob=likely)


def shown(body: dict[str, list[str]]) -> list[str]:
    return [body[name][0] for name in ("query", "prompts", "labels")]


@pytest.fixture
def judge(make_config, small_world):
    """Return a function that builds a judge by likelihood."""

    def make(policy: Saying, **settings: Any) -> Judge:
        config = make_config(tasks={TYPE: {"pair": TYPE, "reward": "likelihood"}})
        return Judge(config, small_world.tokenizer, policy, **settings)

    return make


def scores(judge: Judge, bodies: list[dict[str, list[str]]]) -> list[float]:
    """Return the rewards of rollouts, one after another."""

    async def one_by_one() -> list[float]:
        return [(await judge.score(judge.rollout(*shown(body)))).reward for body in bodies]

    return asyncio.run(one_by_one())


def test_a_query_as_openrlhf_decodes_it_is_taken_apart(judge, posted, small_world):
    body, tokenizer = posted(TYPE, "CD19+ B"), small_world.tokenizer
    tokens = tokenizer(body["query"][0], add_special_tokens=False)["input_ids"]
    prompt = tokenizer(body["prompts"][0], add_special_tokens=False)["input_ids"]
    for cut in (0, 5):  # OpenRLHF cuts a prompt that is too long at its beginning
        decoded = tokenizer.decode(tokens[cut:], skip_special_tokens=False)
        rollout = judge(scripted()).rollout(decoded, body["prompts"][0], body["labels"][0])
        alone = tokenizer.decode(tokens[len(prompt) :], skip_special_tokens=True)
        assert rollout.text.split() == alone.split()
    prompt = "GENE " * 40
    assert response_in(prompt[5:] + "T", prompt) == "T", "the longest part that fits"


def test_tags_that_are_special_tokens_stay(judge, posted, small_world):
    body, served = posted(TYPE, "CD19+ B"), judge(scripted())
    tags = ["<think>", "</think>", "<answer>", "</answer>"]
    tokenizer = copy.deepcopy(small_world.tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": tags})
    text = Judge(served._scorer._config, tokenizer, served.policy).rollout(*shown(body)).text
    assert text == served.rollout(*shown(body)).text
    assert all(tag in text for tag in tags)


def test_what_the_policy_failed_at_is_asked_again_and_what_the_text_lacks_is_not(judge, posted):
    policy = scripted("http_5xx")
    assert scores(judge(policy), [posted(TYPE), posted(TYPE), posted(TYPE)]) == [0.0, 1.0, 1.0]
    assert len(policy.scored) == 2
    policy = scripted()
    assert scores(judge(policy), [posted(TYPE, "T"), posted(TYPE, ""), posted(TYPE, "T")]) == [1.0, 0.0, 1.0]
    assert len(policy.scored) == 1


def test_rows_are_forgotten_in_the_order_they_were_last_asked_for(judge, posted):
    policy = scripted()
    rows = [posted(TYPE, row=row) for row in range(3)]
    scores(judge(policy, rows=2), [rows[0], rows[1], rows[0], rows[2], rows[0]])
    assert len(policy.scored) == 3
    scores(judge(policy, rows=2), [rows[0], rows[1], rows[2], rows[0]])
    assert len(policy.scored) == 3 + 4


@pytest.mark.parametrize(
    ("task", "dual", "code", "where"),
    [
        ({"minimum_spread": 0.1}, {}, "needs-group", f"tasks.{TYPE}.minimum_spread"),
        ({"votes": True}, {}, "needs-group", f"tasks.{TYPE}.votes"),
        ({}, {"timeout_seconds": 180}, "dual-timeout-too-long", "dual.timeout_seconds"),
    ],
)
def test_what_needs_the_group_or_may_outlast_openrlhf_is_refused(make_config, small_world, task, dual, code, where):
    config = make_config(tasks={TYPE: {"pair": TYPE, **task}}, dual=dual)
    with refused(code) as error:
        Judge(config, small_world.tokenizer, scripted())
    assert error.value.where == where


def test_an_endpoint_is_that_of_the_flags_before_the_configuration_and_has_to_be_named(make_config):
    config = make_config(dual={"endpoint": {"urls": ["http://old/v1"], "model": "old", "concurrency": 3}})
    endpoint = with_endpoint(config, urls=("http://new/v1",), model="", tokenizer="folder").dual.endpoint
    assert (endpoint.urls, endpoint.model, endpoint.concurrency) == (("http://new/v1",), "old", 3)
    assert endpoint.tokenizer == "folder"
    for changes, where in (({}, "dual.endpoint.urls"), ({"urls": ("http://host/v1",)}, "dual.endpoint.model")):
        with refused("no-endpoint") as error:
            with_endpoint(make_config(), **changes)
        assert error.value.where == where


GOOD = {"query": ["ab", "cd"], "prompts": ["a", "c"], "labels": ["1", "2"]}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
REPLY = b'{"rewards": 0.5, "scores": 0.5, "extra_logs": {"dual_reward": 0.5}}'


@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=5))
def test_what_was_sent_is_read_in_its_order(rollouts):
    fields = dict(zip(GOOD, map(list, zip(*rollouts, strict=True)), strict=True))
    assert protocol.read_request(json.dumps({**fields, "more": 1}).encode()) == rollouts


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(body):
    with pytest.raises(Malformed):
        protocol.read_request(body)


def test_a_reply_that_openrlhf_could_not_train_on_is_malformed():
    wrong = (REPLY.replace(b"0.5,", value + b",", 1) for value in (b"NaN", b"true", b"null"))
    of_one = b"\xff", b"[]", *wrong, b'{"rewards": 0.5, "scores": 0.5}', REPLY.replace(b"0.5}", b"Infinity}")
    of_two = b'{"rewards": [0.5], "scores": [0.5], "extra_logs": {}}', REPLY
    for body, rollouts in [*((body, 1) for body in of_one), *((body, 2) for body in of_two)]:
        with pytest.raises(Malformed):
            protocol.read_reply(body, rollouts)
    lists = {"rewards": [0, 1], "scores": [0, 1], "extra_logs": {"dual_reward": [0.0, 1.0]}}
    assert protocol.read_reply(json.dumps({**lists, "further": 1}).encode(), 2) == lists


def test_a_token_is_made_for_this_machine_alone(monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    (one, made), (other, _) = find_token("127.0.0.1"), find_token("::1")
    assert made
    assert allowed(f"Bearer {one}", one)
    headers = f"Bearer {one}", "Bearer ünï", "Basic \ud800", "Basic QQ==", "Basic" + "A" * 10_000, " " * 50
    assert not any(allowed(header, other) for header in headers)
    for host in ("0.0.0.0", "::", "10.0.0.7", "rewards.lab", ""):
        with refused("no-token"):
            find_token(host)
    monkeypatch.setenv(TOKEN_VARIABLE, "0123456789abcdef")
    assert find_token("0.0.0.0") == find_token("127.0.0.1") == ("0123456789abcdef", False)


def test_a_weak_token_is_refused_and_not_shown(monkeypatch):
    for token in ("short", "with a blank in the middle", "ünïcödé-ünïcödé-ü", "tab\tor-a-new-line\n"):
        monkeypatch.setenv(TOKEN_VARIABLE, token)
        with refused("weak-token") as caught:
            find_token("127.0.0.1")
        assert token not in str(caught.value)
