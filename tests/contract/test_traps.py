"""What `cellduality doctor` warns of, shown on OpenRLHF itself: a test that fails says which warning is out of date."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from openrlhf.datasets.sft_dataset import SFTDataset
from openrlhf.utils.agent import SingleTurnAgentExecutor
from openrlhf.utils.utils import get_tokenizer
from vllm import SamplingParams

from cellduality_plugin.openrlhf_hooks.cpu.attention import standing_in
from cellduality_plugin.openrlhf_hooks.doctor.flags import RL, SFT
from tests.contract.engine import FixedEngine, strategy

with standing_in():  # OpenRLHF imports flash attention for packing, of which nothing here makes use
    from openrlhf.models.actor import Actor
    from openrlhf.models.loss import PolicyLoss
    from openrlhf.models.utils import compute_reward, log_probs_from_logits
    from openrlhf.trainer.ppo_trainer import compute_eval_metrics
    from openrlhf.trainer.ppo_utils import samples_generator
    from openrlhf.trainer.ray import launcher
    from openrlhf.trainer.ray.vllm_worker_wrap import WorkerWrap


def test_room_for_prompts__a_response_as_long_as_the_context_passes_an_overlong_prompt_whole(small_world):
    for max_tokens, kept in ((3, 1), (4, 5)):
        engine, params = FixedEngine(), SamplingParams(max_tokens=max_tokens)
        executor, prompt = SingleTurnAgentExecutor(None), "<s> CD74 CD79A LYZ FTL"
        asyncio.run(executor.execute(prompt, "", params, 4, small_world.tokenizer, engine))
        assert len(engine.asked[0]) == kept


def test_reward_file__only_the_first_is_loaded_and_an_exception_leaves_no_reward(small_world, tmp_path):
    for name, text in (("a.py", "1 / 0"), ("b.py", "return [{'rewards': 1.0}]")):
        (tmp_path / name).write_text(f"def reward_func(queries, prompts, labels):\n    {text}\n")
    executor = SingleTurnAgentExecutor([str(tmp_path / "a.py"), str(tmp_path / "b.py")])
    params = SamplingParams(max_tokens=4)
    run = executor.execute("CD74", "", params, 64, small_world.tokenizer, FixedEngine())
    assert asyncio.run(run)["reward"] is None


def test_chat_template_is_applied__sft_and_rl_have_different_defaults(parse_trainer):
    rl = ["--train.agent_func_path", "agent.py"]
    assert parse_trainer(SFT, []).data.input_template == "User: {}\nAssistant: "
    assert parse_trainer(RL, rl).data.input_template is None
    assert not parse_trainer(SFT, []).data.apply_chat_template
    assert not parse_trainer(RL, rl).data.apply_chat_template


def test_estimator__the_default_loads_a_critic(parse_trainer):
    flags = ["--train.agent_func_path", "agent.py", "--actor.model_name_or_path", "policy"]
    assert parse_trainer(RL, flags).critic.model_name_or_path == "policy"


def test_template_given_as_text__is_the_template_itself(small_world, read_rows):
    tokenizer, settings = get_tokenizer(str(small_world.model), None, "right"), {"tokenizer_chat_template": "{{ 'x' }}"}
    rows = read_rows(small_world.data / "sft.jsonl").select([0])
    SFTDataset(rows, tokenizer, 256, strategy(output_key="output", **settings), num_processors=1)
    assert tokenizer.chat_template == "{{ 'x' }}"


def test_configuration_reaches_workers__three_variables_are_handed_on():
    spec = importlib.util.find_spec(RL)
    assert spec is not None
    source = Path(str(spec.origin)).read_text(encoding="utf-8")
    [handed] = re.findall(r'"env_vars": \{(.*?)\n *\}', source, re.DOTALL)
    names = re.findall(r'^ *"(\w+)":', handed, re.MULTILINE)
    assert names == ["TOKENIZERS_PARALLELISM", "NCCL_DEBUG", "RAY_ENABLE_ZERO_COPY_TORCH_TENSORS"]


def test_precision__weights_of_another_type_than_the_engines_are_refused(monkeypatch):
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    worker = SimpleNamespace(model_config=SimpleNamespace(dtype=torch.bfloat16))
    with pytest.raises(AssertionError, match="mismatch dtype"):
        WorkerWrap.update_weight(worker, "lm_head.weight", torch.float16, (1, 1))


@pytest.mark.parametrize(
    ("settings", "refusal"),
    [
        ({"dual_clip": 1.0}, AssertionError),
        ({"is_correction_level": "seq", "is_correction_mode": "clip"}, ValueError),
        ({"is_correction_level": "token", "is_correction_mode": "clip", "is_correction_gating": "tv"}, ValueError),
        ({"is_correction_level": "seq", "is_correction_gating": "binary_kl"}, ValueError),
    ],
)
def test_clipping_and_correction__are_refused_by_the_loss(settings, refusal):
    with pytest.raises(refusal):
        PolicyLoss(**settings)


def test_flash_attention__is_imported_whatever_attention_is_chosen(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("openrlhf.models")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    with patch.dict(sys.modules), pytest.raises(ModuleNotFoundError, match="flash_attn"):
        importlib.import_module("openrlhf.models")


def test_adapters__have_names_that_the_engine_has_not(small_world):
    """Weights are sent to vLLM under the names of `named_parameters`."""
    names = {
        rank: {name for name, _ in Actor(str(small_world.model), "eager", lora_rank=rank).model.named_parameters()}
        for rank in (0, 4)
    }
    assert "lm_head.weight" in names[0] or "model.embed_tokens.weight" in names[0]
    assert not names[0] & names[4]
    assert any("lora_A" in name for name in names[4])


def test_temperature__0_makes_the_loss_nan():
    # The chosen token is the likeliest, as a greedy one is: infinity from infinity. An unlikely one would give -inf.
    logits, labels = torch.tensor([[[2.0, 1.0, -1.0]]]), torch.zeros(1, 1, dtype=torch.long)
    assert log_probs_from_logits(logits.clone(), labels, temperature=0.5).isfinite().all()
    assert log_probs_from_logits(logits.clone(), labels, temperature=0.0).isnan().all()


def test_advantage_range__cuts_what_is_below_the_mean():
    mask = torch.tensor([[1], [1]])
    rewards = compute_reward(torch.tensor([-1.0, 1.0]), 0.0, torch.zeros(2, 1), mask, reward_clip_range=(0, 1))
    assert rewards.flatten().tolist() == [0.0, 1.0]


def test_dynamic_filtering__keeps_a_group_of_equal_rewards_and_drops_means_of_0_and_1(monkeypatch):
    def response(value: float) -> dict[str, Any]:
        return {
            "prompt": "p", "label": "l", "observation_tokens": [1, 2, 3], "action_ranges": [(1, 3)],
            "rollout_log_probs": None, "reward": value, "scores": value, "extra_logs": {},
        }  # fmt: skip

    monkeypatch.setattr(
        samples_generator, "ray", SimpleNamespace(get=lambda ref: ref, wait=lambda refs, **_: (refs[:1], refs[1:]))
    )
    generator = object.__new__(samples_generator.SamplesGenerator)
    generator.args = SimpleNamespace(algo=SimpleNamespace(dynamic_filtering_range=(0, 1)))
    groups = [[response(value)] * 2 for value in (0.0, 0.5, 1.0)]
    generator._dispatch_prompts_to_vllm = lambda *_, **__: groups
    prompts = iter([("source", ["p"] * 3, ["l"] * 3, [None] * 3)])
    kept, _, _ = generator._generate_vllm(prompts, 3, True)
    assert [each.scores.item() for each in kept] == [0.5, 0.5]


def test_meaning_of_evaluation__is_the_mean_reward_and_a_prompt_has_one_source():
    def sample(prompt: str, reward: float) -> SimpleNamespace:
        one = torch.tensor([1.0])
        return SimpleNamespace(prompts=[prompt], rewards=torch.tensor([reward]), response_length=one, truncated=one)

    rows = [(["a"], ["same"], [""], [None]), (["b"], ["same"], [""], [None])]
    found = compute_eval_metrics(rows, [sample("same", 0.25), sample("same", 0.75)], 1)
    assert found["eval_b_pass1"] == 0.5
    assert "eval_a_pass1" not in found


def test_rollouts_fill_ranks__uneven_micro_batches_leave_ranks_with_fewer(monkeypatch):
    shares: list[int] = []

    def actor() -> SimpleNamespace:
        run = SimpleNamespace(remote=lambda _name, chunk, _start, _end: shares.append(len(chunk["x"])))
        return SimpleNamespace(execute_batch=run)

    monkeypatch.setattr(launcher, "ray", SimpleNamespace(put=lambda value: value))
    group = object.__new__(launcher.RayActorGroup)
    group._actor_handlers, group.duplicate_actors = [actor() for _ in range(8)], 1
    group.async_run_method_batch("append", x=list(range(9)))
    assert shares == [2, 2, 2, 2, 1, 0, 0, 0]
    with pytest.raises(ValueError, match="Insufficient batch size"):
        group.async_run_method_batch("append", x=list(range(7)))


ZERO = """
import json, os
os.environ.update(DS_ACCELERATOR="cpu", RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
from types import SimpleNamespace
import deepspeed, torch
import importlib
from cellduality_plugin.openrlhf_hooks.cpu.attention import standing_in
from cellduality_plugin.openrlhf_hooks.cpu.patches import communicate_without_compiled_kernels
communicate_without_compiled_kernels(importlib.import_module("deepspeed.comm.torch"))
with standing_in():
    from openrlhf.utils.deepspeed.deepspeed import DeepspeedStrategy
torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=torch.distributed.HashStore())
deepspeed.init_distributed("gloo", dist_init_required=False)
found = {}
for stage in (1, 2, 3):
    args = SimpleNamespace(ds=SimpleNamespace(param_dtype="bf16"), train=SimpleNamespace(dynamic_batch_enable=True))
    config = DeepspeedStrategy(zero_stage=stage, train_batch_size=4, args=args).get_ds_train_config(max_norm=0.0)
    config["zero_allow_untested_optimizer"] = True
    zero = config["zero_optimization"]
    config["zero_optimization"] = {name: value for name, value in zero.items() if value != "auto"}
    model = torch.nn.Linear(3, 1, bias=False).to(torch.bfloat16)
    torch.nn.init.zeros_(model.weight)
    engine, *_ = deepspeed.initialize(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=1.0), config=config)
    for row in torch.eye(3, dtype=torch.bfloat16):
        engine.backward(engine(row[None]).sum())
    engine.step()
    with deepspeed.zero.GatheredParameters([model.weight], enabled=stage == 3):
        found[stage] = model.weight.detach().flatten().tolist()
print("RESULT", json.dumps(found))
"""


def test_zero_and_dynamic_batch__stages_1_and_2_keep_the_last_gradient_and_stage_3_all():
    """Three micro-batches of one update, each of which moves one weight."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", ZERO], capture_output=True, text=True, timeout=300)
    result = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    assert result is not None, done.stderr[-2000:]
    assert json.loads(result.removeprefix("RESULT ")) == {"1": [0, 0, -1], "2": [0, 0, -1], "3": [-1, -1, -1]}
