"""The executor on a scripted engine: what is asked of it, what becomes of the answers, and what goes wrong."""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openrlhf.utils.agent import SingleTurnAgentExecutor
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example
from cellduality_plugin.framing import render
from cellduality_plugin.openrlhf_hooks import executor as executor_module
from cellduality_plugin.openrlhf_hooks.executor import DualityExecutor, EnginePolicy
from cellduality_plugin.policies import engine as engine_policy
from cellduality_plugin.policies.base import PolicyError
from cellduality_plugin.policies.settings import DualSettings
from cellduality_plugin.readings import readings
from cellduality_plugin.replay import Replay
from cellduality_plugin.tasks import TASKS, DualTask

LONG = 256


@dataclass
class ScriptedEngine:
    """Answers one question from a list and every other, the dual, by one text, in vLLM's own output classes."""

    tokenizer: Any
    question: list[int]
    answers: Sequence[str]
    rebuilt: str = ""
    dual_delay: float = 0.0
    dual_fails: Exception | None = None
    log_prob: Callable[[int], float] = lambda place: -float(place)
    rollouts: list[list[int]] = field(default_factory=list)
    duals: list[tuple[list[int], SamplingParams]] = field(default_factory=list)

    async def generate(self, tokens: list[int], params: SamplingParams, multi_modal_data: Any = None) -> RequestOutput:
        if tokens == self.question:
            text = self.answers[len(self.rollouts) % len(self.answers)]
            self.rollouts.append(list(tokens))
        else:
            text = self.rebuilt
            self.duals.append((list(tokens), params))
            await asyncio.sleep(self.dual_delay)
            if self.dual_fails is not None:
                raise self.dual_fails
        await asyncio.sleep(0)
        end = self.tokenizer.eos_token_id
        answer = [*self.tokenizer(text, add_special_tokens=False)["input_ids"], end][: params.max_tokens]
        logprobs = None if params.logprobs is None else [{token: Logprob(-0.5)} for token in answer]
        if params.logprob_token_ids:  # beside those that are asked for vLLM lists the token it chose
            logprobs = [{token: Logprob(self.log_prob(token)) for token in (*params.logprob_token_ids, answer[0])}]
        before: Any = None
        if params.prompt_logprobs is not None:  # beside the prompt's own token vLLM lists the likeliest one
            before = [{token + 1: Logprob(0.0), token: Logprob(self.log_prob(n))} for n, token in enumerate(tokens)]
            before[0] = None
        reason = "stop" if answer[-1] == end else "length"
        output = CompletionOutput(0, "", answer, None, logprobs, finish_reason=reason)
        return RequestOutput("1", None, list(tokens), before, [output], True)


@dataclass
class Question:
    """One RL row in the policy's own tokens."""

    task: DualTask
    example: Example
    prompt: str
    tokens: list[int]
    label: str


@pytest.fixture
def tokenizer(small_world):
    return small_world.tokenizer


@pytest.fixture
def question(cell, vocabulary, tokenizer):
    """Return a function that gives the question of a task about the one cell."""

    def make(name: str) -> Question:
        task = TASKS[name]
        example = task.example(cell, hidden=0.25, labelled=False, rng=np.random.default_rng(0))
        messages = [{"role": "user", "content": task.primal_prompt(example.inputs, vocabulary)}]
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        tokens = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        return Question(task, example, prompt, tokens, example.to_label())

    return make


@pytest.fixture
def make_executor(make_config, tmp_path):
    """Return a function that builds the executor as OpenRLHF does, with the settings given."""

    def make(**settings: object) -> DualityExecutor:
        make_config(**settings)
        return DualityExecutor(tmp_path / "cellduality.json")

    return make


def roll(
    executor: Any, engine: ScriptedEngine, asked: Question, samples: int = 1, params: Any = None, length: int = LONG
) -> list[dict[str, Any]]:
    """Return the rollouts of one group, made at the same time with the same sampling parameters."""
    params = params or SamplingParams(max_tokens=64)

    async def group() -> list[dict[str, Any]]:
        return await asyncio.gather(
            *(
                executor.execute(asked.prompt, asked.label, params, length, engine.tokenizer, engine)
                for _ in range(samples)
            )
        )

    return asyncio.run(group())


def answers_of(asked: Question, cell: Any) -> tuple[str, str]:
    """Return the right answer and the right reconstruction."""
    gold = asked.task.example(cell, hidden=0.25, labelled=True, rng=np.random.default_rng(0)).gold
    assert gold is not None
    return asked.task.answer_response(gold), asked.task.rebuilt_response(asked.example.unknown)


def judged_by(reward: str, asked: Question, **settings: Any) -> dict[str, Any]:
    """Return the settings of a run with the one task of ``asked``."""
    return {asked.task.name: {"pair": asked.task.name, "reward": reward, **settings}}


@pytest.mark.parametrize("name", TASKS)
def test_the_engine_that_made_the_rollout_plays_the_dual(name, question, cell, vocabulary, tokenizer, make_executor):
    asked = question(name)
    answer, rebuilt = answers_of(asked, cell)
    engine = ScriptedEngine(tokenizer, asked.tokens, [answer], rebuilt)
    [rollout] = roll(make_executor(dual={"temperature": 0.25}), engine, asked)
    assert rollout["reward"] == rollout["scores"] == 1.0
    value = asked.task.parse_answer(answer, vocabulary).value
    dual_prompt = asked.task.dual_prompt(asked.example.known, value, vocabulary)
    [(tokens, params)] = engine.duals
    assert tokens == render(tokenizer, dual_prompt)
    assert tokens[0] == tokenizer.bos_token_id
    assert tokenizer.unk_token_id not in tokens
    assert (params.temperature, params.max_tokens) == (0.25, LONG - len(tokens))


@pytest.mark.parametrize("name", TASKS)
def test_the_trained_tokens_are_those_of_the_stock_rollout(name, question, cell, tokenizer, make_executor):
    asked = question(name)
    answer, rebuilt = answers_of(asked, cell)
    params = SamplingParams(max_tokens=64, logprobs=1)
    engines = [ScriptedEngine(tokenizer, asked.tokens, [answer], rebuilt) for _ in range(2)]
    [ours] = roll(make_executor(), engines[0], asked, params=params)
    [stock] = roll(SingleTurnAgentExecutor(None), engines[1], asked, params=params)
    filled = {"reward", "scores", "extra_logs"}
    assert ours.keys() == stock.keys()
    assert {key: ours[key] for key in ours.keys() - filled} == {key: stock[key] for key in stock.keys() - filled}
    assert ours["observation_tokens"][: len(asked.tokens)] == asked.tokens
    assert ours["action_ranges"] == [(len(asked.tokens), len(ours["observation_tokens"]))]
    assert len(engines[0].duals) == 1


def test_a_group_asks_one_dual_for_each_distinct_answer(question, tokenizer, make_executor):
    asked = question("cell_type_annotation")
    say = asked.task.answer_response
    texts = [say("T"), say("CD19+ B"), say("T"), "no answer", say("t"), say("T"), say("CD19+ B"), say("T")]
    engine = ScriptedEngine(tokenizer, asked.tokens, texts, asked.task.rebuilt_response(asked.example.unknown))
    rollouts = roll(make_executor(), engine, asked, samples=8)
    assert len(engine.rollouts) == 8
    assert len(engine.duals) == 2
    assert [rollout["reward"] for rollout in rollouts] == [1, 1, 1, 0, 0, 1, 1, 1]
    assert sum(rollout["extra_logs"]["dual_requests"] for rollout in rollouts) == 2


def test_another_group_with_the_same_label_is_judged_by_the_policy_of_its_own_time(question, tokenizer, make_executor):
    asked, executor = question("cell_type_annotation"), make_executor()
    right = asked.task.rebuilt_response(asked.example.unknown)
    engine = ScriptedEngine(tokenizer, asked.tokens, [asked.task.answer_response("T")], "nothing to read")
    groups = [SamplingParams(max_tokens=64) for _ in range(2)]
    first = roll(executor, engine, asked, params=groups[0])
    engine.rebuilt = right
    again, other = roll(executor, engine, asked, params=groups[0]), roll(executor, engine, asked, params=groups[1])
    assert [rollout["reward"] for [rollout] in (first, again, other)] == [0.0, 0.0, 1.0]
    assert len(engine.duals) == 2


def test_two_questions_under_the_same_sampling_parameters_are_two_groups(question, cell, tokenizer, make_executor):
    executor, params = make_executor(), SamplingParams(max_tokens=64)
    for name in TASKS:
        asked = question(name)
        answer, rebuilt = answers_of(asked, cell)
        engine = ScriptedEngine(tokenizer, asked.tokens, [answer], rebuilt)
        [rollout] = roll(executor, engine, asked, params=params)
        assert rollout["reward"] == 1.0
        assert rollout["extra_logs"][f"dual_share/{name}"] == 1.0


def test_a_forgotten_group_costs_a_dual_and_changes_no_reward(question, tokenizer, make_executor):
    asked, executor = question("cell_type_annotation"), make_executor()
    executor._groups = executor_module._Groups(capacity=2)
    rebuilt = asked.task.rebuilt_response(asked.example.unknown)
    engine = ScriptedEngine(tokenizer, asked.tokens, [asked.task.answer_response("T")], rebuilt)
    groups = [SamplingParams(max_tokens=64) for _ in range(3)]
    rewards = [roll(executor, engine, asked, params=params)[0]["reward"] for params in [*groups, groups[2], groups[0]]]
    assert rewards == [1.0] * 5
    assert len(engine.duals) == 4
    assert len(executor._groups._groups) == 2


class TestOtherRewards:
    def test_the_posterior_of_a_hidden_label_is_one_question_and_decodes_nothing(
        self, question, cell, vocabulary, tokenizer, make_executor
    ):
        asked = question("conditional_cell_generation")
        answer, _ = answers_of(asked, cell)
        engine = ScriptedEngine(tokenizer, asked.tokens, [answer], log_prob=lambda place: 0.0)
        rollouts = roll(make_executor(tasks=judged_by("posterior", asked)), engine, asked, samples=3)
        labels = vocabulary.labels["cell_type"]
        assert [rollout["reward"] for rollout in rollouts] == [1 / len(labels)] * 3
        assert [rollout["extra_logs"]["dual_requests"] for rollout in rollouts] == [1, 0, 0]
        [(tokens, params)] = engine.duals
        assert tokenizer.decode(tokens).endswith("<answer>")
        assert (params.max_tokens, params.prompt_logprobs, len(params.logprob_token_ids)) == (1, None, len(labels))

    def test_each_draw_is_decoded_on_its_own(self, question, cell, tokenizer, make_executor):
        asked = question("cell_type_annotation")
        answer, rebuilt = answers_of(asked, cell)
        engine = ScriptedEngine(tokenizer, asked.tokens, [answer], rebuilt)
        dual = {"samples": 3, "temperature": 0.5, "max_new_tokens": 20}
        [rollout] = roll(make_executor(dual=dual), engine, asked)
        assert (rollout["reward"], rollout["extra_logs"]["dual_requests"]) == (1.0, 3.0)
        assert [(params.temperature, params.max_tokens) for _, params in engine.duals] == [(0.5, 20)] * 3

    def test_the_oracle_refuses_a_row_without_gold_before_it_costs_a_rollout(self, question, tokenizer, make_executor):
        asked = question("cell_type_annotation")
        engine = ScriptedEngine(tokenizer, asked.tokens, [""])
        with pytest.raises(CellDualityError, match="the oracle needs the true answer"):
            roll(make_executor(tasks=judged_by("oracle", asked)), engine, asked)
        assert not engine.rollouts

    def test_a_reward_that_cannot_judge_its_task_stops_the_executor(self, question, make_executor):
        with pytest.raises(CellDualityError, match="rbo compares ranked lists"):
            make_executor(tasks=judged_by("duality-rbo", question("conditional_cell_generation")))

    @pytest.mark.parametrize(("bound", "rewards"), [(0.0, [1.0, 0.5, 1.0, 0.0]), (1.0, [1.0, 0.5, 1.0, 0.0])])
    def test_a_group_with_spread_keeps_it(self, bound, rewards, question, cell, tokenizer, make_executor):
        asked, engine = self.repeating(question, cell, tokenizer, "no answer")
        executor = make_executor(tasks=judged_by("duality", asked, minimum_spread=bound))
        assert [rollout["reward"] for rollout in roll(executor, engine, asked, samples=4)] == rewards

    def test_a_group_with_too_little_is_levelled(self, question, cell, tokenizer, make_executor):
        asked, engine = self.repeating(question, cell, tokenizer)
        executor = make_executor(tasks=judged_by("duality", asked, minimum_spread=0.75))
        rollouts = roll(executor, engine, asked, samples=4)
        assert {rollout["reward"] for rollout in rollouts} == {rollout["scores"] for rollout in rollouts} == {0.75}
        assert {rollout["extra_logs"]["dual_levelled"] for rollout in rollouts} == {1.0}

    def repeating(self, question: Any, cell: Any, tokenizer: Any, *more: str) -> tuple[Question, ScriptedEngine]:
        """Return a group that answers with a whole cell and with one whose second half repeats the first."""
        asked = question("conditional_cell_generation")
        whole, half = (asked.task.answer_response(genes) for genes in (cell.genes, cell.genes[:4] * 2))
        rebuilt = asked.task.rebuilt_response(asked.example.unknown)
        return asked, ScriptedEngine(tokenizer, asked.tokens, [whole, half, whole, *(more or (half,))], rebuilt)


class TestMonitors:
    def test_the_last_rollout_of_a_group_tells_what_the_group_was(self, question, tokenizer, make_executor):
        asked = question("cell_type_annotation")
        texts = [asked.task.answer_response(label) for label in ("T", "CD19+ B", "T")] + ["no answer"]
        engine = ScriptedEngine(tokenizer, asked.tokens, texts, asked.task.rebuilt_response(asked.example.unknown))
        logs = [rollout["extra_logs"] for rollout in roll(make_executor(), engine, asked, samples=4)]
        assert sorted(log["dual_groups"] for log in logs) == [0, 0, 0, 4]
        read = readings({key: sum(log[key] for log in logs) / 4 for key in logs[0]})
        assert (read["dual_distinct_answers"], read["dual_zero_variance"]) == (2.0, 0.0)
        assert 0.0 < read["dual_time_share"] < 1.0

    def test_a_rollout_that_was_cut_is_told(self, question, tokenizer, make_executor):
        asked = question("cell_type_annotation")
        engine = ScriptedEngine(tokenizer, asked.tokens, [asked.task.answer_response("T"), "no answer " * 40])
        rollouts = roll(make_executor(), engine, asked, samples=2, params=SamplingParams(max_tokens=20))
        assert [rollout["extra_logs"]["dual_truncated"] for rollout in rollouts] == [0.0, 1.0]
        assert [rollout["truncated"] for rollout in rollouts] == [False, True]

    @pytest.mark.parametrize("bound", [0.0, 0.5])
    def test_a_group_whose_member_is_cancelled_does_not_hang(self, bound, question, tokenizer, make_executor):
        asked = question("cell_type_annotation")
        executor = make_executor(tasks=judged_by("duality", asked, minimum_spread=bound))
        right = asked.task.rebuilt_response(asked.example.unknown)
        engine = ScriptedEngine(tokenizer, asked.tokens, [asked.task.answer_response("T")], right, dual_delay=0.05)
        params = SamplingParams(max_tokens=64)

        async def group() -> list[Any]:
            rollouts = [
                asyncio.ensure_future(executor.execute(asked.prompt, asked.label, params, LONG, tokenizer, engine))
                for _ in range(4)
            ]
            await asyncio.sleep(0.02)
            rollouts[0].cancel()
            return await asyncio.wait_for(asyncio.gather(*rollouts, return_exceptions=True), 5.0)

        cancelled, *others = asyncio.run(group())
        assert isinstance(cancelled, asyncio.CancelledError)
        assert [rollout["reward"] for rollout in others] == [1.0] * 3
        assert sorted(rollout["extra_logs"]["dual_groups"] for rollout in others) == [0, 0, 3]


class TestRecords:
    @pytest.mark.parametrize("reward", ["duality", "likelihood", "posterior"])
    def test_of_what_the_engine_said_give_the_same_rewards_without_it(
        self, reward, question, cell, tokenizer, make_executor, tmp_path
    ):
        settings = {"records": {"folder": "rollouts", "every": 1}}
        for name in ("cell_type_annotation", "conditional_cell_generation"):
            asked = question(name)
            answer, rebuilt = answers_of(asked, cell)
            texts = [answer, "no answer", asked.task.answer_response("T" if "annotation" in name else ("CD74",))]
            engine = ScriptedEngine(tokenizer, asked.tokens, texts, rebuilt, log_prob=lambda place: -1 / (place + 1))
            executor = make_executor(tasks=judged_by(reward, asked), **settings)
            rewards = [rollout["reward"] for rollout in roll(executor, engine, asked, samples=6)]
            work = Replay(Config.load(tmp_path / "cellduality.json"), {})
            newest = max((tmp_path / "rollouts").glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
            [results] = work.run([newest])
            assert sorted(result["reward"] for result in results) == sorted(rewards)
            assert max(rewards) > 0

    def test_are_not_kept_unless_asked_for(self, question, tokenizer, make_executor, tmp_path):
        asked = question("cell_type_annotation")
        roll(make_executor(), ScriptedEngine(tokenizer, asked.tokens, [""]), asked)
        assert not list(tmp_path.rglob("*.jsonl"))


class TestFailuresAreData:
    def test_a_dual_prompt_without_room_earns_nothing(self, question, cell, vocabulary, tokenizer, make_executor):
        asked = question("conditional_cell_generation")  # its question is short, its dual holds a whole cell
        answer, rebuilt = answers_of(asked, cell)
        length = len(asked.tokens) + len(tokenizer(answer)["input_ids"]) + 1
        engine = ScriptedEngine(tokenizer, asked.tokens, [answer], rebuilt)
        params = SamplingParams(max_tokens=length - len(asked.tokens))
        [rollout] = roll(make_executor(), engine, asked, params=params, length=length)
        assert not engine.duals
        assert (rollout["reward"], rollout["scores"]) == (0.0, 0.0)
        assert rollout["extra_logs"]["dual_failed"] == 1.0
        assert rollout["extra_logs"]["dual_answer_parsed"] == 1.0
        assert not rollout["truncated"]

    def test_a_dual_that_fills_the_context_gets_what_room_there_is(self, question, cell, tokenizer, make_executor):
        asked = question("cell_type_annotation")
        answer, rebuilt = answers_of(asked, cell)
        engine = ScriptedEngine(tokenizer, asked.tokens, [answer], rebuilt)
        roll(make_executor(), engine, asked)
        [(tokens, _)] = engine.duals
        engine = ScriptedEngine(tokenizer, asked.tokens, [answer], rebuilt)
        params = SamplingParams(max_tokens=len(tokenizer(answer)["input_ids"]) + 1)
        length = max(len(tokens) + 1, len(asked.tokens) + params.max_tokens)
        [rollout] = roll(make_executor(), engine, asked, params=params, length=length)
        [(_, dual_params)] = engine.duals
        assert dual_params.max_tokens == length - len(tokens) >= 1
        assert math.isfinite(rollout["reward"])

    def test_a_slow_dual_is_given_up(self, question, tokenizer, make_executor):
        asked = question("cell_type_annotation")
        engine = ScriptedEngine(tokenizer, asked.tokens, [asked.task.answer_response("T")], dual_delay=60.0)
        rollouts = roll(make_executor(dual={"timeout_seconds": 0.05}), engine, asked, samples=4)
        assert {rollout["reward"] for rollout in rollouts} == {0.0}
        assert {rollout["extra_logs"]["dual_timeout"] for rollout in rollouts} == {1.0}

    @pytest.mark.parametrize("reward", ["duality", "likelihood"])
    @pytest.mark.parametrize(
        "error", [EngineGenerateError("at fault"), VLLMValidationError("too long"), ValueError("too long")]
    )
    def test_an_engine_that_refuses_a_dual_earns_nothing_and_says_so_once(
        self, error, reward, question, tokenizer, make_executor, monkeypatch, caplog
    ):
        monkeypatch.setattr(engine_policy, "_LOGGED", set())
        asked = question("cell_type_annotation")
        tasks = {"cell_type_annotation": {"pair": "cell_type_annotation", "reward": reward}}
        answers = [asked.task.answer_response(label) for label in ("T", "CD19+ B")]
        engine = ScriptedEngine(tokenizer, asked.tokens, answers, dual_fails=error)
        rollouts = roll(make_executor(tasks=tasks), engine, asked, samples=4)
        assert {rollout["reward"] for rollout in rollouts} == {0.0}
        assert {rollout["extra_logs"]["dual_failed/engine_error"] for rollout in rollouts} == {1.0}
        assert len(engine.duals) == 2
        [line] = [record.getMessage() for record in caplog.records]
        assert line == f"the engine refused a dual: {type(error).__name__}: {error}"

    def test_an_engine_that_is_dead_ends_the_run(self, question, tokenizer, make_executor):
        asked = question("cell_type_annotation")
        engine = ScriptedEngine(
            tokenizer, asked.tokens, [asked.task.answer_response("T")], dual_fails=EngineDeadError()
        )
        with pytest.raises(EngineDeadError):
            roll(make_executor(), engine, asked)

    @pytest.mark.parametrize("log_prob", [math.nan, -math.inf, math.inf])
    def test_a_likelihood_that_is_no_number_earns_nothing(self, log_prob, question, tokenizer, make_executor):
        asked = question("cell_type_annotation")
        tasks = {"cell_type_annotation": {"pair": "cell_type_annotation", "reward": "likelihood"}}
        engine = ScriptedEngine(
            tokenizer, asked.tokens, [asked.task.answer_response("T")], log_prob=lambda place: log_prob
        )
        [rollout] = roll(make_executor(tasks=tasks), engine, asked)
        assert rollout["reward"] == rollout["scores"] == 0.0
        assert rollout["extra_logs"]["dual_failed"] == 1.0

    TEXTS = (
        "", " ", "<answer>", "</answer></answer>", "<think><answer></think></answer>", "<answer> </answer>",
        "<answer> T </answer> <answer> T </answer>", "<answer> nobody knows </answer>", "<answer> CD74 CD74 </answer>",
        "<s> <|user|> <|assistant|>", "CD74 " * 80,
    )  # fmt: skip

    @pytest.mark.parametrize("name", TASKS)
    def test_no_answer_and_no_dual_can_make_a_reward_that_is_no_number(self, name, question, tokenizer, make_executor):
        asked, keys = question(name), None
        for text, rebuilt in itertools.product(self.TEXTS, self.TEXTS):
            engine = ScriptedEngine(tokenizer, asked.tokens, [text], rebuilt)
            [rollout] = roll(make_executor(), engine, asked, params=SamplingParams(max_tokens=24))
            assert isinstance(rollout["reward"], float)
            assert 0 <= rollout["reward"] == rollout["scores"] <= 1
            assert all(isinstance(value, float) and math.isfinite(value) for value in rollout["extra_logs"].values())
            keys = keys or list(rollout["extra_logs"])
            assert list(rollout["extra_logs"]) == keys

    def test_every_task_and_every_failure_logs_the_same_keys_in_the_same_order(
        self, question, cell, tokenizer, make_executor
    ):
        seen = []
        for name in TASKS:
            asked = question(name)
            answer, rebuilt = answers_of(asked, cell)
            for texts in ((answer, rebuilt), (answer, "?"), ("?", "?")):
                engine = ScriptedEngine(tokenizer, asked.tokens, [texts[0]], texts[1])
                seen.append(list(roll(make_executor(), engine, asked)[0]["extra_logs"]))
        assert all(keys == seen[0] for keys in seen)


class TestMistakesOfTheUser:
    def test_a_model_without_a_chat_template_is_refused(self, question, tokenizer, make_executor):
        asked, bare = question("cell_type_annotation"), copy.deepcopy(tokenizer)
        bare.chat_template = None
        engine = ScriptedEngine(bare, asked.tokens, [""])
        with pytest.raises(CellDualityError, match="no chat template") as raised:
            roll(make_executor(), engine, asked)
        assert raised.value.where
        assert "chat_template" in raised.value.mend
        assert not engine.rollouts, "it must not cost a rollout to find out"

    @pytest.mark.parametrize("label", ["", "T", "[]", "{}", '{"schema":1}', None])
    def test_a_malformed_label_is_refused(self, label, question, tokenizer, make_executor):
        asked = question("cell_type_annotation")
        asked.label = label
        engine = ScriptedEngine(tokenizer, asked.tokens, [""])
        with pytest.raises(CellDualityError, match="malformed label row") as raised:
            roll(make_executor(), engine, asked)
        assert "--data.label_key label" in raised.value.mend
        assert not engine.rollouts

    def test_a_task_that_is_not_configured_is_refused(self, question, tokenizer, make_executor):
        asked = question("cell_type_annotation")
        asked.label = json.dumps({**json.loads(asked.label), "task": "drug_response"})
        with pytest.raises(CellDualityError, match="asks for the task 'drug_response'"):
            roll(make_executor(), ScriptedEngine(tokenizer, asked.tokens, [""]), asked)

    def test_an_executor_without_a_configuration_says_how_to_name_one(self, monkeypatch):
        monkeypatch.delenv("CELLDUALITY_CONFIG", raising=False)
        with pytest.raises(CellDualityError, match="CELLDUALITY_CONFIG is not set"):
            DualityExecutor()

    def test_a_configuration_that_is_not_there_is_named(self, tmp_path: Path):
        with pytest.raises(CellDualityError, match="cannot read the configuration") as raised:
            DualityExecutor(tmp_path / "gone.json")
        assert raised.value.where == str(tmp_path / "gone.json")


class TestLogProbs:
    @pytest.fixture
    def engine(self, question, tokenizer) -> ScriptedEngine:
        return ScriptedEngine(tokenizer, question("cell_type_annotation").tokens, [""])

    def test_are_those_of_the_response_and_of_nothing_before_it(self, engine, tokenizer):
        policy = EnginePolicy(engine, tokenizer, LONG, DualSettings())
        prompt = "Observed genes: CD74 CD79A"
        found = asyncio.run(policy.log_probs(prompt, "<answer> HLA-DRA MS4A1 </answer>"))
        start = len(render(tokenizer, prompt))
        assert found == [-float(place) for place in range(start, start + 4)]
        [(tokens, params)] = engine.duals
        assert tokens[start:] == tokenizer("<answer> HLA-DRA MS4A1 </answer>", add_special_tokens=False)["input_ids"]
        assert (params.max_tokens, params.prompt_logprobs) == (1, 0)

    def test_of_a_given_beginning_are_left_out(self, engine, tokenizer):
        policy = EnginePolicy(engine, tokenizer, LONG, DualSettings())
        prompt, given, response = "Type: T", "<think> CD74 FTL </think>", "<answer> HLA-DRA MS4A1 </answer>"
        whole = asyncio.run(policy.log_probs(prompt, given + response))
        assert asyncio.run(policy.log_probs(prompt, response, given=given)) == whole[-4:]
        assert engine.duals[0][0] == engine.duals[1][0]

    def test_of_a_response_that_does_not_fit_are_refused_without_asking(self, engine, tokenizer):
        prompt, response = "Observed genes: CD74", "<answer> MS4A1 </answer>"
        start = len(render(tokenizer, prompt))
        fits = EnginePolicy(engine, tokenizer, start + 3 + 1, DualSettings())  # vLLM decodes one token at least
        assert len(asyncio.run(fits.log_probs(prompt, response))) == 3
        tight = EnginePolicy(engine, tokenizer, start + 3, DualSettings())
        with pytest.raises(PolicyError, match="prompt_too_long"):
            asyncio.run(tight.log_probs(prompt, response))
        assert len(engine.duals) == 1

    def test_of_a_choice_are_asked_where_the_responses_part_and_nowhere_else(self, engine, tokenizer):
        policy = EnginePolicy(engine, tokenizer, LONG, DualSettings())
        prompt = "Cell: CD74 CD79A"
        responses = ["<answer> T </answer>", "<answer> CD19+ B </answer>", "<answer> CD56+ NK </answer>"]
        found = asyncio.run(policy.choice_log_probs(prompt, responses))
        opening, *labels = (
            tokenizer(part, add_special_tokens=False)["input_ids"]
            for part in ("<answer>", "T", *("CD19+ B", "CD56+ NK"))
        )
        [(tokens, params)] = engine.duals
        assert tokens == render(tokenizer, prompt) + opening
        assert sorted(params.logprob_token_ids) == sorted(label[0] for label in labels)
        assert (params.max_tokens, params.prompt_logprobs) == (1, None)
        assert found == [-float(label[0]) for label in labels]

    def test_of_more_tokens_than_one_request_may_name_take_several(self, engine, tokenizer):
        policy = EnginePolicy(engine, tokenizer, LONG, DualSettings())
        found = asyncio.run(policy._next([1, 2, 3], range(300)))
        assert found == {token: -float(token) for token in range(300)}
        assert [len(params.logprob_token_ids) for _, params in engine.duals] == [128, 128, 44]

    def test_of_a_choice_that_does_not_fit_are_refused_without_asking(self, engine, tokenizer):
        prompt = "Cell: CD74"
        start = len(render(tokenizer, prompt))
        tight = EnginePolicy(engine, tokenizer, start + 3, DualSettings())
        with pytest.raises(PolicyError, match="prompt_too_long"):
            asyncio.run(tight.choice_log_probs(prompt, ["<answer> T </answer>", "<answer> CD19+ B </answer>"]))
        assert engine.duals == []

    def test_make_the_likelihood_reward(self, question, vocabulary, tokenizer, make_executor):
        asked = question("cell_type_annotation")
        tasks = {"cell_type_annotation": {"pair": "cell_type_annotation", "reward": "likelihood"}}
        worst = -math.log(len(vocabulary.genes))
        for log_prob, reward in ((0.0, 1.0), (worst / 2, 0.5), (worst, 0.0), (2 * worst, 0.0)):
            engine = ScriptedEngine(
                tokenizer, asked.tokens, [asked.task.answer_response("T")], log_prob=lambda _, at=log_prob: at
            )
            [rollout] = roll(make_executor(tasks=tasks), engine, asked)
            assert rollout["reward"] == reward


def test_a_draw_may_have_a_seed_and_a_temperature_of_its_own(question, tokenizer):
    engine = ScriptedEngine(tokenizer, question("cell_type_annotation").tokens, [""])
    policy = EnginePolicy(engine, tokenizer, LONG, DualSettings(max_new_tokens=7))
    asyncio.run(policy.generate("Type: T", seed=3, temperature=0.5))
    asyncio.run(policy.generate("Type: T"))
    told = [(params.seed, params.temperature, params.max_tokens) for _, params in engine.duals]
    assert told == [(3, 0.5, 7), (None, 0.0, 7)]


def test_traces_come_from_the_engine_and_are_scored_by_it(question, cell, vocabulary, tokenizer, make_executor):
    asked = question("cell_type_annotation")
    settings = judged_by("posterior", asked, hidden=1.0, traces=2)
    engine = ScriptedEngine(
        tokenizer, asked.tokens, [asked.task.answer_response("T")], "<think> CD74 </think><answer> LYZ </answer>",
        log_prob=lambda place: -1.0,
    )  # fmt: skip
    dual = {"max_new_tokens": 20, "trace_temperature": 0.5}
    [rollout] = roll(make_executor(tasks=settings, dual=dual), engine, asked)
    labels = len(vocabulary.labels["cell_type"])
    assert rollout["reward"] == 1 / labels
    drawn = [params for _, params in engine.duals if params.prompt_logprobs is None]
    assert [(params.temperature, params.max_tokens) for params in drawn] == [(0.5, 20)] * (2 * labels)
    assert len({params.seed for params in drawn}) == 2 * labels
    scored = [tokens for tokens, params in engine.duals if params.prompt_logprobs is not None]
    assert len(scored) == labels, "two draws with the same trace are scored once"
    end = tokenizer(asked.task.rebuilt_response(cell.genes, "CD74"), add_special_tokens=False)["input_ids"]
    assert all(tokens[-len(end) :] == end for tokens in scored)


class TestAFrozenDual:
    def rolled(self, executor: DualityExecutor, engine: ScriptedEngine, asked: Question, samples: int) -> list[Any]:
        async def group() -> list[Any]:
            given = (asked.prompt, asked.label, SamplingParams(max_tokens=64), LONG, engine.tokenizer, engine)
            rollouts = await asyncio.gather(*(executor.execute(*given) for _ in range(samples)))
            assert executor._frozen is not None
            await executor._frozen.close()
            return rollouts

        return asyncio.run(group())

    @pytest.mark.parametrize("own_tokenizer", [False, True])
    def test_is_played_at_the_endpoint_and_not_by_the_engine(
        self, question, tokenizer, small_world, make_executor, policy_server, own_tokenizer
    ):
        asked = question("cell_type_annotation")
        policy_server.text = asked.task.rebuilt_response(asked.example.unknown)
        endpoint = {"urls": [policy_server.url], "model": "toy"}
        if own_tokenizer:
            endpoint["tokenizer"] = str(small_world.model)
        engine = ScriptedEngine(tokenizer, asked.tokens, [asked.task.answer_response("T")], "nothing to read")
        executor = make_executor(dual={"player": "frozen", "endpoint": endpoint})
        rollouts = self.rolled(executor, engine, asked, 4)
        assert [rollout["reward"] for rollout in rollouts] == [1.0] * 4
        assert len(engine.rollouts) == 4
        assert engine.duals == []
        assert len(policy_server.asked) == 1

    def test_of_an_endpoint_that_is_gone_is_a_failed_dual(self, question, tokenizer, make_executor, policy_server):
        asked = question("cell_type_annotation")
        endpoint = {"urls": [policy_server.url], "model": "toy", "retries": 0}
        policy_server.stop()
        engine = ScriptedEngine(tokenizer, asked.tokens, [asked.task.answer_response("T")])
        executor = make_executor(dual={"player": "frozen", "endpoint": endpoint})
        [rollout] = self.rolled(executor, engine, asked, 1)
        assert rollout["reward"] == 0.0
        assert rollout["extra_logs"]["dual_failed"] == 1.0

    def test_at_what_is_no_address_is_refused_before_the_first_rollout(self, make_executor):
        with pytest.raises(CellDualityError, match="is no http address"):
            make_executor(dual={"player": "frozen", "endpoint": {"urls": ["localhost:8000"], "model": "toy"}})

    def test_is_a_choice_an_endpoint_alone_makes_nothing_frozen(
        self, question, tokenizer, make_executor, policy_server
    ):
        asked = question("cell_type_annotation")
        rebuilt = asked.task.rebuilt_response(asked.example.unknown)
        engine = ScriptedEngine(tokenizer, asked.tokens, [asked.task.answer_response("T")], rebuilt)
        endpoint = {"urls": [policy_server.url], "model": "toy"}
        [rollout] = roll(make_executor(dual={"endpoint": endpoint}), engine, asked)
        assert rollout["reward"] == 1.0
        assert len(engine.duals) == 1
        assert policy_server.asked == []
