"""What the executor asks of the engine, and what a rollout carries; what goes wrong in a dual is data."""

from __future__ import annotations

import asyncio
import copy
import json

import pytest
from openrlhf.utils.agent import SingleTurnAgentExecutor
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from cellduality_plugin.chat import render
from cellduality_plugin.openrlhf_hooks import executor as executor_module
from cellduality_plugin.policies import tokens as engine_policy
from cellduality_plugin.policies.base import PolicyError
from cellduality_plugin.policies.settings import DualSettings
from cellduality_plugin.policies.tokens import EnginePolicy
from cellduality_plugin.tasks import TASKS
from cellduality_plugin.tasks.base import FORMAT_RULE
from tests.refused import refused

TYPE, CELL = "cell_type_annotation", "conditional_cell_generation"


@pytest.mark.parametrize("name", TASKS)
def test_the_engine_that_made_the_rollout_plays_the_dual(name, scene, vocabulary, tokenizer):
    at = scene(name, dual={"temperature": 0.25})
    [rollout] = at.roll()
    assert rollout["reward"] == rollout["scores"] == 1.0
    value = at.task.parse_answer(at.engine.answers[0], vocabulary).value
    [(tokens, params)] = at.engine.duals
    assert tokens == render(tokenizer, at.task.dual_prompt(at.example.known, value, vocabulary))
    assert tokens[0] == tokenizer.bos_token_id
    assert tokenizer.unk_token_id not in tokens
    assert (params.temperature, params.max_tokens) == (0.25, 256 - len(tokens))


@pytest.mark.parametrize("name", TASKS)
def test_the_trained_tokens_are_those_of_the_stock_rollout(name, scene):
    at, params = scene(name), SamplingParams(max_tokens=64, logprobs=1)
    [ours] = at.roll(params=params)
    at.executor = SingleTurnAgentExecutor(None)
    [stock] = at.roll(params=params)
    assert ours.keys() == stock.keys()
    filled = {"reward": ours["reward"], "scores": ours["scores"], "extra_logs": ours["extra_logs"]}
    assert ours == {**stock, **filled}
    assert ours["observation_tokens"][: len(at.tokens)] == at.tokens
    assert ours["action_ranges"] == [(len(at.tokens), len(ours["observation_tokens"]))]


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
    assert (len(at.engine.rollouts), at.engine.duals, len(policy_server.asked)) == (4, [], 1)


def test_a_dual_without_room_for_its_prompt_earns_nothing(scene, tokenizer):
    at = scene(CELL)  # its question is short, its dual holds a whole cell
    room = len(tokenizer(at.engine.answers[0])["input_ids"]) + 1
    [rollout] = at.roll(params=SamplingParams(max_tokens=room), length=len(at.tokens) + room)
    assert not at.engine.duals
    assert (rollout["reward"], rollout["scores"], rollout["truncated"]) == (0.0, 0.0, False)
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


class TestMistakesOfTheUser:
    """None of them may cost a rollout to find out."""

    def test_a_model_without_a_chat_template_is_refused(self, scene):
        at = scene()
        at.engine.tokenizer = copy.deepcopy(at.engine.tokenizer)
        at.engine.tokenizer.chat_template = None
        with refused("no-chat-template"):
            at.roll()
        assert not at.engine.rollouts

    @pytest.mark.parametrize(
        ("label", "code"),
        [
            (lambda label: "", "malformed-row"),
            (lambda label: '{"schema":1}', "malformed-row"),
            (lambda label: None, "malformed-row"),
            (lambda label: label, "needs-gold"),
            (lambda label: json.dumps({**json.loads(label), "task": "drug_response"}), "unknown-task"),
        ],
    )
    def test_a_label_that_cannot_be_judged_is_refused(self, label, code, scene):
        at = scene(task={"reward": "oracle"})
        at.label = label(at.label)
        with refused(code):
            at.roll()
        assert not at.engine.rollouts

    def test_an_endpoint_that_is_no_address_stops_the_executor(self, scene):
        with refused("no-address"):
            scene(dual={"player": "frozen", "endpoint": {"urls": ["localhost:8000"], "model": "toy"}})


class TestTheEngineAsAPolicy:
    PROMPT = "Observed genes: CD74 CD79A"

    @pytest.fixture
    def engine(self, scene):
        return scene().engine

    @pytest.fixture
    def ask(self, engine, tokenizer):
        """Return a function that asks a policy whose context has so many tokens."""
        return lambda call, *arguments, length=256: asyncio.run(
            getattr(EnginePolicy(engine, tokenizer, length, DualSettings()), call)(*arguments)
        )

    def test_log_probs_are_those_of_the_response_and_of_nothing_before_it(self, ask, engine, tokenizer):
        response = "<answer> HLA-DRA MS4A1 </answer>"
        start = len(render(tokenizer, self.PROMPT))
        assert ask("log_probs", self.PROMPT, response) == [-float(place) for place in range(start, start + 4)]
        [(tokens, params)] = engine.duals
        assert tokens[start:] == tokenizer(response, add_special_tokens=False)["input_ids"]
        assert (params.max_tokens, params.prompt_logprobs) == (1, 0)

    def test_what_does_not_fit_is_refused_without_asking(self, ask, engine, tokenizer):
        response, start = "<answer> MS4A1 </answer>", len(render(tokenizer, self.PROMPT))
        assert len(ask("log_probs", self.PROMPT, response, length=start + 4)) == 3  # vLLM decodes one token at least
        for call, asked in (("log_probs", response), ("choice_log_probs", [response, "<answer> CD19+ B </answer>"])):
            with pytest.raises(PolicyError, match="prompt_too_long"):
                ask(call, self.PROMPT, asked, length=start + 3)
        assert len(engine.duals) == 1

    def test_a_choice_is_asked_about_where_the_responses_branch_and_nowhere_else(self, ask, engine, tokenizer):
        responses = ["<answer> T </answer>", "<answer> CD19+ B </answer>", "<answer> CD56+ NK </answer>"]
        found = ask("choice_log_probs", self.PROMPT, responses)
        parts = ("<answer>", "T", "CD19+ B", "CD56+ NK")
        opening, *labels = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in parts)
        [(tokens, params)] = engine.duals
        assert tokens == render(tokenizer, self.PROMPT) + opening
        assert sorted(params.logprob_token_ids) == sorted(label[0] for label in labels)
        assert (params.max_tokens, params.prompt_logprobs) == (1, None)
        assert found == [-float(label[0]) for label in labels]

    def test_more_tokens_than_one_request_may_name_take_several(self, ask, engine):
        assert ask("_next", [1, 2, 3], range(300)) == {token: -float(token) for token in range(300)}
        assert [len(params.logprob_token_ids) for _, params in engine.duals] == [128, 128, 44]
