"""What the executor asks of the engine, and what a rollout carries; what goes wrong in a dual is data."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from openrlhf.utils.agent import SingleTurnAgentExecutor
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from cellduality_plugin.chat import render
from cellduality_plugin.examples import Example
from cellduality_plugin.openrlhf_hooks import executor as executor_module
from cellduality_plugin.openrlhf_hooks.executor import DualityExecutor
from cellduality_plugin.policies import tokens as engine_policy
from cellduality_plugin.policies.base import PolicyError
from cellduality_plugin.policies.settings import DualSettings
from cellduality_plugin.policies.tokens import EnginePolicy
from cellduality_plugin.tasks import TASKS, DualTask
from cellduality_plugin.tasks.base import FORMAT_RULE
from tests.contract.engine import ScriptedEngine
from tests.refused import refused
from tests.stack.score_in_engine import asked

TYPE, CELL = "cell_type_annotation", "conditional_cell_generation"


@dataclass
class Scene:
    """One RL row in the policy's own tokens, the engine that answers it, and the executor that judges the answers."""

    task: DualTask
    example: Example
    prompt: str
    tokens: list[int]
    label: str | None
    engine: ScriptedEngine
    executor: Any

    def roll(self, samples: int = 1, params: Any = None, length: int = 256) -> list[dict[str, Any]]:
        """Return the rollouts of one group, made at the same time with the same sampling parameters."""
        given = (self.prompt, self.label, params or SamplingParams(max_tokens=64), length, self.engine.tokenizer)

        async def group() -> list[dict[str, Any]]:
            rollouts = await asyncio.gather(*(self.executor.execute(*given, self.engine) for _ in range(samples)))
            if getattr(self.executor, "_frozen", None) is not None:
                await self.executor._frozen.close()
            return rollouts

        return asyncio.run(group())

    def rewards(self, samples: int = 1, **how: Any) -> list[float]:
        return [rollout["reward"] for rollout in self.roll(samples, **how)]


@pytest.fixture
def tokenizer(small_world):
    return small_world.tokenizer


@pytest.fixture
def scene(cell, vocabulary, tokenizer, make_config, tmp_path) -> Callable[..., Scene]:
    """Return a function that makes a scene: answers and the dual are right unless others are given.

    Of the settings of a run, those of the one task are ``task``.
    """

    def make(name=TYPE, *answers, rebuilt=None, engine=None, task=None, **settings) -> Scene:
        pair = TASKS[name]
        gold = pair.example(cell, hidden=0.25, labelled=True, rng=np.random.default_rng(0)).gold
        example = pair.example(cell, hidden=0.25, labelled=False, rng=np.random.default_rng(0))
        prompt, tokens = asked(tokenizer, pair.primal_prompt(example.inputs, vocabulary))
        if task is not None:
            settings["tasks"] = {name: {"pair": name, **task}}
        make_config(**settings)
        said = [*map(pair.answer_response, answers or [gold])]
        dual = pair.rebuilt_response(example.unknown) if rebuilt is None else rebuilt
        scripted = ScriptedEngine(tokenizer, tokens, said, dual, **(engine or {}))
        executor = DualityExecutor(tmp_path / "cellduality.json")
        return Scene(pair, example, prompt, tokens, example.to_label(), scripted, executor)

    return make


@pytest.mark.parametrize("name", TASKS)
def test_the_engine_plays_the_dual_and_the_trained_tokens_are_those_of_the_stock_rollout(
    name, scene, vocabulary, tokenizer
):
    at, sampling = scene(name, dual={"temperature": 0.25}), SamplingParams(max_tokens=64, logprobs=1)
    [ours] = at.roll(params=sampling)
    assert ours["reward"] == ours["scores"] == 1.0
    value = at.task.parse_answer(at.engine.answers[0], vocabulary).value
    [(tokens, params)] = at.engine.duals
    assert tokens == render(tokenizer, at.task.dual_prompt(at.example.known, value, vocabulary))
    assert tokens[0] == tokenizer.bos_token_id
    assert tokenizer.unk_token_id not in tokens
    assert (params.temperature, params.max_tokens) == (0.25, 256 - len(tokens))
    at.executor = SingleTurnAgentExecutor(None)
    [stock] = at.roll(params=sampling)
    assert ours == {**stock, **{name: ours[name] for name in ("reward", "scores", "extra_logs")}}
    assert ours.keys() == stock.keys()


@pytest.mark.parametrize("kind", ["special tags", "opened trace", "opened trace, special tags"])
class TestTokenizersOfOthers:
    """Tags are special tokens, and the template opens the trace."""

    @pytest.fixture
    def tokenizer(self, small_world, kind):
        own, tags = copy.deepcopy(small_world.tokenizer), ["<think>", "</think>", "<answer>", "</answer>"]
        if "special" in kind:
            own.add_special_tokens({"additional_special_tokens": tags})
        if "opened" in kind:
            own.chat_template = own.chat_template.replace("<|assistant|>", "<|assistant|><think>\n")
        return own

    @pytest.mark.parametrize("name", TASKS)
    def test_a_right_answer_and_a_right_dual_are_paid(self, name, kind, scene):
        at = scene(name)
        if "opened" in kind:
            at.engine.answers = [text.removeprefix("<think>") for text in at.engine.answers]
            at.engine.rebuilt = at.engine.rebuilt.removeprefix("<think>")
        assert at.rewards() == [1.0]
        assert at.engine.duals

    def test_what_is_scored_follows_the_prompt_as_a_response_would(self, kind, scene, tokenizer):
        at = scene(CELL, task={"reward": "likelihood"})
        at.roll()
        [(tokens, _)] = at.engine.duals
        for tag in ("<think>", "</think>"):  # of the response, and of the rule in the question
            assert tokens.count(tokenizer.convert_tokens_to_ids(tag)) == 1 + FORMAT_RULE.count(tag)


class TestGroups:
    def test_with_the_same_label_are_judged_by_the_policy_of_their_own_time(self, scene):
        at, groups = scene(), [SamplingParams(max_tokens=64) for _ in range(2)]
        right, at.engine.rebuilt = at.engine.rebuilt, "nothing to read"
        first = at.rewards(params=groups[0])
        at.engine.rebuilt = right
        assert [first, at.rewards(params=groups[0]), at.rewards(params=groups[1])] == [[0.0], [0.0], [1.0]]
        assert len(at.engine.duals) == 2

    def test_of_two_questions_under_the_same_sampling_parameters_are_two(self, scene):
        params, executor = SamplingParams(max_tokens=64), scene().executor
        for name in TASKS:
            at = scene(name)
            at.executor = executor
            [rollout] = at.roll(params=params)
            assert (rollout["reward"], rollout["extra_logs"][f"dual_share/{name}"]) == (1.0, 1.0)

    def test_that_are_forgotten_cost_a_dual_and_change_no_reward(self, scene, monkeypatch):
        at, groups = scene(), [SamplingParams(max_tokens=64) for _ in range(3)]
        monkeypatch.setattr(executor_module, "_REMEMBERED_GROUPS", 2)
        assert [at.rewards(params=params) for params in [*groups, groups[2], groups[0]]] == [[1.0]] * 5
        assert len(at.engine.duals) == 4


def test_traces_come_from_the_engine_and_are_scored_by_it(scene, cell, vocabulary, tokenizer):
    at = scene(
        TYPE, "T", rebuilt="<think> CD74 </think><answer> LYZ </answer>", engine={"log_prob": lambda place: -1.0},
        task={"reward": "posterior", "hidden": 1.0, "traces": 2},
        dual={"max_new_tokens": 20, "trace_temperature": 0.5},
    )  # fmt: skip
    labels = len(vocabulary.labels["cell_type"])
    assert at.rewards() == [1 / labels]
    drawn = [params for _, params in at.engine.duals if params.prompt_logprobs is None]
    assert [(params.temperature, params.max_tokens) for params in drawn] == [(0.5, 20)] * (2 * labels)
    assert len({params.seed for params in drawn}) == 2 * labels
    scored = [tokens for tokens, params in at.engine.duals if params.prompt_logprobs is not None]
    assert len(scored) == labels, "two draws with the same trace are scored once"
    end = tokenizer(at.task.rebuilt_response(cell.genes, "CD74"), add_special_tokens=False)["input_ids"]
    assert all(tokens[-len(end) :] == end for tokens in scored)


@pytest.mark.parametrize("own_tokenizer", [False, True])
def test_a_frozen_dual_is_played_at_the_endpoint_and_not_by_the_engine(
    scene, small_world, policy_server, own_tokenizer
):
    own = {"tokenizer": str(small_world.model)} if own_tokenizer else {}
    endpoint = {"urls": [policy_server.url], "model": "toy", **own}
    at = scene(TYPE, "T", rebuilt="nothing to read", dual={"player": "frozen", "endpoint": endpoint})
    policy_server.text = at.task.rebuilt_response(at.example.unknown)
    assert at.rewards(4) == [1.0] * 4
    assert (at.engine.rollouts, at.engine.duals, len(policy_server.asked)) == (4, [], 1)


def test_a_dual_without_room_for_its_prompt_earns_nothing(scene, tokenizer):
    at = scene(CELL)  # its question is short, its dual holds a whole cell
    room = len(tokenizer(at.engine.answers[0])["input_ids"]) + 1
    [rollout] = at.roll(params=SamplingParams(max_tokens=room), length=len(at.tokens) + room)
    assert (rollout["reward"], rollout["truncated"], at.engine.duals) == (0.0, False, [])
    assert (rollout["extra_logs"]["dual_failed"], rollout["extra_logs"]["dual_answer_parsed"]) == (1.0, 1.0)


@pytest.mark.parametrize("reward", ["duality", "likelihood"])
@pytest.mark.parametrize("error", [EngineGenerateError("at fault"), VLLMValidationError("too long")])
def test_duals_that_the_engine_refuses_earn_nothing_and_are_told_once(error, reward, scene, monkeypatch, caplog):
    monkeypatch.setattr(engine_policy, "_LOGGED", set())
    at = scene(TYPE, "T", "CD19+ B", engine={"dual_fails": error}, task={"reward": reward})
    for rollout in at.roll(4):
        assert (rollout["reward"], rollout["extra_logs"]["dual_failed/engine_error"]) == (0.0, 1.0)
    assert len(at.engine.duals) == 2
    [line] = [record.getMessage() for record in caplog.records]
    assert f"{type(error).__name__}: {error}" in line


def test_an_engine_that_is_dead_ends_the_run(scene):
    with pytest.raises(EngineDeadError):
        scene(engine={"dual_fails": EngineDeadError()}).roll()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("", "malformed-row"),  # what OpenRLHF hands on without --data.label_key
        ('{"schema":1}', "malformed-row"),
        (None, "malformed-row"),
        ({}, "needs-gold"),
        ({"task": "drug_response"}, "unknown-task"),
        ("no template", "no-chat-template"),
    ],
)
def test_a_mistake_of_the_user_costs_no_rollout(change, code, scene):
    at = scene(task={"reward": "oracle"})
    if change == "no template":
        at.engine.tokenizer = copy.deepcopy(at.engine.tokenizer)
        at.engine.tokenizer.chat_template = None
    else:
        at.label = json.dumps({**json.loads(at.label), **change}) if isinstance(change, dict) else change
    with refused(code):
        at.roll()
    assert not at.engine.rollouts
    with refused("no-address"):
        scene(dual={"player": "frozen", "endpoint": {"urls": ["localhost:8000"], "model": "toy"}})


class TestTheEngineAsAPolicy:
    PROMPT, RESPONSE = "Observed genes: CD74 CD79A", "<answer> MS4A1 </answer>"

    @pytest.fixture
    def engine(self, scene):
        return scene(engine={"likely": lambda token: -float(token)}).engine

    @pytest.fixture
    def ask(self, engine, tokenizer):
        """Return a function that asks a policy whose context has so many tokens."""
        return lambda call, *arguments, length=256: asyncio.run(
            getattr(EnginePolicy(engine, tokenizer, length, DualSettings()), call)(*arguments)
        )

    def test_log_probs_are_those_of_the_response_and_what_does_not_fit_is_not_asked(self, ask, engine, tokenizer):
        start = len(render(tokenizer, self.PROMPT))
        found = ask("log_probs", self.PROMPT, self.RESPONSE, length=start + 4)  # vLLM decodes one token at least
        assert found == [-float(place) for place in range(start, start + 3)]
        [(tokens, params)] = engine.duals
        assert tokens[start:] == tokenizer(self.RESPONSE, add_special_tokens=False)["input_ids"]
        assert (params.max_tokens, params.prompt_logprobs) == (1, 0)
        for call, what in (("log_probs", self.RESPONSE), ("choice_log_probs", [self.RESPONSE, "<answer> T </answer>"])):
            with pytest.raises(PolicyError, match="prompt_too_long"):
                ask(call, self.PROMPT, what, length=start + 3)
        assert len(engine.duals) == 1

    def test_a_choice_is_asked_about_where_the_responses_branch_and_nowhere_else(self, ask, engine, tokenizer):
        parts = ("T", "CD19+ B", "CD56+ NK")
        found = ask("choice_log_probs", self.PROMPT, [f"<answer> {part} </answer>" for part in parts])
        opening, *labels = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in ("<answer>", *parts))
        [(tokens, params)] = engine.duals
        assert tokens == render(tokenizer, self.PROMPT) + opening
        assert sorted(params.logprob_token_ids) == sorted(label[0] for label in labels)
        assert (params.max_tokens, params.prompt_logprobs) == (1, None)
        assert found == [-float(label[0]) for label in labels]

    def test_more_tokens_than_one_request_may_name_take_several(self, ask, engine):
        assert ask("_next", [1, 2, 3], range(300)) == {token: -float(token) for token in range(300)}
        assert [len(params.logprob_token_ids) for _, params in engine.duals] == [128, 128, 44]
