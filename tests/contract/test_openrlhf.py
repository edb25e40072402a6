"""What we lean on in OpenRLHF beyond its documentation: each test is named after the behaviour that would be gone."""

from __future__ import annotations

import asyncio
import inspect
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from openrlhf.datasets.prompts_dataset import PromptDataset
from openrlhf.datasets.sft_dataset import SFTDataset
from openrlhf.trainer.ppo_utils.experience import Experience
from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator
from openrlhf.trainer.ray.vllm_engine import RolloutRayActor, _load_agent_executor
from openrlhf.utils.agent import AgentExecutorBase, SingleTurnAgentExecutor
from openrlhf.utils.utils import get_tokenizer
from vllm import SamplingParams

from cellduality_plugin.agent_file import AGENT_FILE, bound_agent_file
from cellduality_plugin.chat import render
from cellduality_plugin.config import PATH_VARIABLE
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.openrlhf_hooks.cpu.attention import standing_in
from cellduality_plugin.openrlhf_hooks.executor import DualityExecutor
from cellduality_plugin.openrlhf_hooks.preflight import Lengths
from cellduality_plugin.scoring import quantise
from cellduality_plugin.tasks import TASKS
from tests.contract.engine import FixedEngine, strategy

with standing_in():  # OpenRLHF imports flash attention wherever it computes advantages, and does not use it there
    from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
    from openrlhf.trainer.ray import ppo_actor

RL = "openrlhf.cli.train_ppo_ray"
ROLLOUT_KEYS = {
    "prompt", "label", "images", "mm_train_inputs", "observation_tokens", "action_ranges", "rollout_log_probs",
    "truncated", "reward", "scores", "extra_logs",
}  # fmt: skip


def generate_responses(executor: AgentExecutorBase, samples: int, **inputs: Any) -> tuple[object, list[Any]]:
    """Run the rollout actor's own coroutine without Ray, and return (the actor, its responses)."""
    actor = SimpleNamespace(executor=executor)
    run = RolloutRayActor.__ray_metadata__.modified_class.generate_responses
    return actor, asyncio.run(run(actor, num_samples=samples, **inputs))


def of_the_executor(world: Any, row: Any, tokens: list[int]) -> dict[str, Any]:
    """Return the rollout that our executor makes of a row."""
    params, executor = SamplingParams(max_tokens=64), DualityExecutor(world.config)
    run = executor.execute(row["input"], row["label"], params, 256, world.tokenizer, FixedEngine(tokens))
    return asyncio.run(run)


@pytest.fixture
def rollout_of(small_world):
    """Return a function that gives the stock executor's rollout dictionary of a prompt."""

    def roll(prompt: str, tokens: list[int], finish_reason: str = "stop", **settings: Any) -> dict[str, Any]:
        params = SamplingParams(**{"max_tokens": 8, **settings})
        executor = SingleTurnAgentExecutor(None)
        engine = FixedEngine(tokens, finish_reason)
        return asyncio.run(executor.execute(prompt, "label", params, 64, small_world.tokenizer, engine))

    return roll


@pytest.mark.parametrize("bound", [True, False])
def test_an_agent_file_is_no_module_and_a_bound_one_needs_no_environment_and_no_working_directory(
    bound, small_world, monkeypatch, tmp_path
):
    monkeypatch.setenv(PATH_VARIABLE, "" if bound else str(small_world.config))
    path = bound_agent_file(small_world.config) if bound else AGENT_FILE
    monkeypatch.chdir(tmp_path)
    executor = _load_agent_executor(str(path))
    assert isinstance(executor, DualityExecutor)
    assert "agent_module" not in sys.modules, "so it may not define what looks itself up"
    assert (type(executor).__module__ in sys.modules) != bound


def test_all_samples_of_a_prompt_get_the_same_parameters_and_the_actor_as_engine_and_one_that_fails_ends_them():
    seen = []

    class Recorder(AgentExecutorBase):
        async def execute(self, **inputs: Any) -> int:
            seen.append(inputs)
            if len(seen) > 8:
                raise RuntimeError("one sample failed")
            return len(seen)

    given = {"prompt": "p", "label": "l", "sampling_params": SamplingParams(), "max_length": 9, "hf_tokenizer": "t"}
    actor, responses = generate_responses(Recorder(), 8, **given)
    assert responses == list(range(1, 9))
    assert all(call["sampling_params"] is given["sampling_params"] and call["llm_engine"] is actor for call in seen)
    assert [call | given for call in seen] == seen
    with pytest.raises(RuntimeError, match="one sample failed"):
        generate_responses(Recorder(), 2, **given)


def test_a_rollout_holds_tokens_and_their_log_probabilities_and_leaves_the_reward_to_us(rollout_of, small_world):
    rollout = rollout_of("Cell: CD74", [5, 6, 7])
    prompt = small_world.tokenizer("Cell: CD74", add_special_tokens=False)["input_ids"]
    start = len(prompt)
    assert rollout.keys() == ROLLOUT_KEYS
    assert rollout["observation_tokens"] == [*prompt, 5, 6, 7]
    assert rollout["action_ranges"] == [(start, start + 3)]
    assert (rollout["prompt"], rollout["label"]) == ("Cell: CD74", "label")
    assert (rollout["reward"], rollout["scores"], rollout["extra_logs"]) == (None, None, {})
    assert rollout["rollout_log_probs"] is None
    assert rollout_of("Cell: CD74", [5, 6, 7], logprobs=1)["rollout_log_probs"] == [0.0] * start + [-0.5] * 3
    assert [rollout_of("CD74", [5], reason)["truncated"] for reason in ("stop", "length")] == [False, True]


def test_an_overlong_prompt_is_cut_from_the_left_in_silence(small_world):
    engine, given = FixedEngine([5]), ("", SamplingParams(max_tokens=2), 5, small_world.tokenizer)
    rollout = asyncio.run(SingleTurnAgentExecutor(None).execute("<s> CD74 CD79A LYZ FTL", *given, engine))
    assert small_world.tokenizer.decode(engine.asked[0]).split() == ["CD79A", "LYZ", "FTL"]
    assert rollout["observation_tokens"][:-1] == engine.asked[0]


class TestExperience:
    @pytest.fixture
    def generator(self) -> SamplesGenerator:
        return object.__new__(SamplesGenerator)

    def test_takes_our_rollouts_and_puts_every_logged_number_into_info(self, generator, small_world, rollout_of):
        answer, logged = small_world.tokenizer("<answer> T </answer>")["input_ids"], []
        for row in read_jsonl(small_world.data / "rl.jsonl"):
            rollout = of_the_executor(small_world, row, answer)
            experience = generator._process_response_into_experience(rollout, max_len=256)
            assert rollout["extra_logs"].keys() <= experience.info.keys()
            for key, value in rollout["extra_logs"].items():
                assert experience.info[key].item() == pytest.approx(value)
            assert experience.rewards.tolist() == experience.scores.tolist() == [rollout["reward"]]
            assert experience.sequences.tolist() == [rollout["observation_tokens"]]
            assert experience.action_mask.sum() == len(answer)
            logged.append(experience)
        assert len(logged) == len(TASKS)
        both = Experience.concat_experiences(logged, small_world.tokenizer.pad_token_id)
        assert {tuple(value.shape) for key, value in both.info.items() if key.startswith("dual_")} == {(len(TASKS),)}

    def test_our_names_do_not_collide_with_those_of_openrlhf(self, generator, small_world, rollout_of):
        stock = generator._process_response_into_experience(rollout_of("CD74", [5]) | {"reward": 1.0, "scores": 1.0})
        ours = of_the_executor(small_world, next(read_jsonl(small_world.data / "rl.jsonl")), [5])["extra_logs"]
        assert not ours.keys() & (stock.info.keys() | {"kl", "return", "logprobs_diff", "group_reward_std"})
        assert all(key.startswith("dual_") for key in ours)


def test_a_number_a_rollout_is_averaged_over_rollouts_and_not_over_tokens():
    """A value with a dimension is a sample's to OpenRLHF, one without is a token's."""
    source = inspect.getsource(ppo_actor)
    assert 'weights[k] = "token" if v.dim() == 0 else "sample"' in source


class TestGroupNorm:
    """OpenRLHF's advantages, computed by its own method on rewards of one step."""

    @pytest.fixture
    def advantages(self, parse_trainer):
        def compute(rewards: torch.Tensor, order: torch.Tensor | None = None) -> torch.Tensor:
            groups, size = rewards.shape
            flags = f"--algo.advantage.estimator group_norm --rollout.n_samples_per_prompt {size} --algo.kl.use_loss"
            flags += " --algo.kl.estimator k3 --train.agent_func_path agent.py --actor.model_name_or_path model"
            maker = object.__new__(RemoteExperienceMaker)
            maker.args = parse_trainer(RL, flags.split())
            maker.strategy = SimpleNamespace(args=maker.args)
            maker.advantage_estimator = maker.args.algo.advantage.estimator
            maker.kl_ctl = SimpleNamespace(value=maker.args.algo.kl.init_coef)
            order = torch.arange(groups * size) if order is None else order
            mask = torch.tensor([[0, 1, 1]]).repeat(groups * size, 1)
            experience = Experience(
                # as SamplesGenerator does: one float32 number a rollout
                rewards=torch.cat([torch.tensor([reward]) for reward in rewards.flatten()[order].tolist()]),
                index=order.tolist(),
                action_mask=mask,
                kl=torch.zeros(mask.shape),
            )
            [found] = maker.compute_advantages_and_returns([experience])
            result = torch.empty(groups * size)
            result[order] = found.advantages[:, -1]
            return result.reshape(groups, size)

        return compute

    def test_a_group_of_equal_quantised_rewards_has_no_advantage_at_all(self, advantages):
        """Whatever its size; that equal answers have equal rewards, and quantised ones, is a law of every reward."""
        for size in range(2, 17):
            rewards = torch.arange(1025, dtype=torch.float64).unsqueeze(1).repeat(1, size) / 1024
            assert torch.count_nonzero(advantages(rewards)) == 0, size
        raw = torch.rand(512, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64).repeat(1, 8)
        # 10 is where OpenRLHF clips (--reward.clip_range): the largest advantage there is, for no reason at all
        assert (advantages(raw).abs().amax(dim=1) == 10).float().mean() > 0.1, "trained on rounding error"
        quantised = raw.clone().apply_(quantise)
        assert torch.count_nonzero(advantages(quantised)) == 0

    def test_is_the_papers_normalisation_within_each_group_whatever_the_order(self, advantages):
        generator = torch.Generator().manual_seed(1)
        rewards = torch.randint(0, 1025, (16, 8), generator=generator).double() / 1024
        expected = (rewards - rewards.mean(1, keepdim=True)) / rewards.std(1, keepdim=True)
        order = torch.randperm(rewards.numel(), generator=generator)
        torch.testing.assert_close(advantages(rewards, order).double(), expected, rtol=1e-5, atol=1e-5)


def test_prompts_are_rendered_as_the_dual_and_the_length_check_render_them_and_carry_the_label(read_rows, small_world):
    tokenizer, path = get_tokenizer(str(small_world.model), None), small_world.data / "rl.jsonl"
    rendered = PromptDataset(read_rows(path), tokenizer, strategy(label_key="label"))
    rows, lengths = list(read_jsonl(path)), Lengths(tokenizer)
    assert len(rendered) == len(rows) > 0
    for row, (task, prompt, label, _) in zip(rows, rendered, strict=True):
        assert (label, task) == (row["label"], row["datasource"])
        tokens = tokenizer(text=prompt, add_special_tokens=False)["input_ids"]
        assert tokens == render(tokenizer, row["input"])
        assert len(tokens) == lengths.prompts([row["input"]])[0]
        assert tokens.count(tokenizer.bos_token_id) == 1


def test_sft_trains_on_exactly_the_response_and_one_end_token_and_cuts_an_overlong_row(read_rows, small_world):
    tokenizer, path = get_tokenizer(str(small_world.model), None, "right"), small_world.data / "sft.jsonl"
    rows, lengths = list(read_jsonl(path)), Lengths(tokenizer)

    def dataset(max_len: int) -> SFTDataset:
        return SFTDataset(read_rows(path), tokenizer, max_len, strategy(output_key="output"), num_processors=1)

    whole = dataset(256)
    assert len(whole) == len(rows) > 0
    for row, (tokens, attention, loss_mask) in zip(rows, whole, strict=True):
        response = tokenizer(row["output"], add_special_tokens=False)["input_ids"]
        targets = tokens[0, 1:][loss_mask[0, :-1] == 1].tolist()
        assert targets == [*response, tokenizer.eos_token_id]
        assert attention.all()
        # the same tokens apart as together
        assert tokens[0].tolist() == [*render(tokenizer, row["input"]), *response, tokenizer.eos_token_id]
        assert tokens.shape[1] == lengths.prompts([row["input"]])[0] + lengths.responses([row["output"]])[0]
    fits = whole[0][0].shape[1]
    tokens, _, _ = dataset(fits - 1)[0]
    assert tokens.shape[1] == fits - 1
    assert tokens[0, -1] == tokenizer.eos_token_id
