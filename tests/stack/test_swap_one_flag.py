"""Whoever runs OpenRLHF's own custom-reward example gets the dual reward by changing one flag."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stack.conftest import DUAL_KEYS, scalars

pytestmark = [pytest.mark.stack, pytest.mark.long]

# The flags of OpenRLHF's examples/scripts/train_ppo_with_reward_fn.sh (PPO with a critic), as 0.11.2 names them, and
# `--data.label_key` from the README's "Custom Reward Function".
EXAMPLE = """
    --ref.num_nodes 1 --ref.num_gpus_per_node 2 --critic.num_nodes 1 --critic.num_gpus_per_node 2
    --actor.num_nodes 1 --actor.num_gpus_per_node 2 --vllm.num_engines 2 --vllm.tensor_parallel_size 2
    --train.colocate_actor_ref
    --actor.model_name_or_path OpenRLHF/Llama-3-8b-sft-mixture
    --reward.remote_url /openrlhf/examples/python/reward_func.py
    --ckpt.output_dir /openrlhf/examples/checkpoint/llama3-8b-rlhf
    --train.micro_batch_size 8 --train.batch_size 128 --rollout.micro_batch_size 16 --rollout.batch_size 1024
    --data.max_samples 100000 --train.max_epochs 1 --data.max_len 2048 --ds.zero_stage 3 --ds.param_dtype bf16
    --actor.adam.lr 5e-7 --critic.adam.lr 9e-6 --algo.kl.init_coef 0.01
    --data.prompt_dataset OpenRLHF/prompt-collection-v0.1 --data.input_key context_messages --data.label_key answer
    --data.apply_chat_template --reward.normalize_enable --ds.packing_samples --ds.adam_offload
    --ds.attn_implementation flash_attention_2 --actor.gradient_checkpointing_enable
    --logger.wandb.key {wandb_token}
"""

# What a small machine without GPUs and without accounts needs instead: one process of each kind instead of two GPUs for
# each, two small steps, the model and the rows, gloo instead of nccl, nothing compiled.
HERE = """
    --ref.num_gpus_per_node 1 --critic.num_gpus_per_node 1 --actor.num_gpus_per_node 1
    --vllm.num_engines 1 --vllm.tensor_parallel_size 1
    --train.batch_size 8 --rollout.micro_batch_size 8 --rollout.batch_size 8 --data.max_samples 16 --data.max_len 128
    --actor.model_name_or_path {run}/sft --ckpt.output_dir {run}/out --data.prompt_dataset {run}/data/rl.jsonl
    --data.input_key input --data.label_key label --vllm.sync_backend gloo --vllm.enforce_eager
    --logger.tensorboard_dir {run}/tensorboard
"""
MISSING = ("--ds.adam_offload", "--logger.wandb.key")
"""There is no GPU to offload from, and no account at Weights & Biases."""


def read_flags(text: str) -> dict[str, str]:
    """Return the flags by name; one without a value has an empty one."""
    return dict(re.findall(r"(--\S+)\s+((?!--)\S+)?", text))


def test_the_example_trains_with_the_dual_reward(prepared, start):
    binaries = Path(sys.prefix) / "bin"
    command = [binaries / "cellduality", "agent-path", "--config", prepared / "data" / "cellduality.json"]
    agent = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    flags = read_flags(EXAMPLE)
    del flags["--reward.remote_url"]
    flags["--train.agent_func_path"] = agent  # the one swap this test is about
    flags |= {flag: value.format(run=prepared) for flag, value in read_flags(HERE).items()}
    words = [word for flag, value in flags.items() if flag not in MISSING for word in (flag, value) if word]

    trainer = (str(binaries / "cellduality-cpu"), "python", "-m", "openrlhf.cli.train_ppo_ray")
    # Slots: actor with reference, critic, engine.
    start(prepared, *trainer, *words, CELLDUALITY_CPU_SLOTS="3").ends_well()
    found = scalars(prepared / "tensorboard")
    for name in {"reward", "critic_loss", *DUAL_KEYS}:
        assert len(found[name]) == 2, name
        assert all(map(math.isfinite, found[name])), name
    assert max(found["dual_reward"]) > 0, "nothing was ever rewarded"
    assert (prepared / "out" / "config.json").is_file()
