"""From what OpenRLHF tells of a rollout to the score the agent would give it."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest

from cellduality_plugin.openrlhf_hooks.remote.judge import Judge, response_in, with_endpoint
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
