"""A good run of each stage, and what becomes of it when one thing is changed."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cellduality_plugin.agent_file import bound_agent_file
from cellduality_plugin.openrlhf_hooks.doctor.command import RL, SFT, Command
from cellduality_plugin.openrlhf_hooks.doctor.examine import examine
from cellduality_plugin.openrlhf_hooks.doctor.finding import Finding
from cellduality_plugin.openrlhf_hooks.doctor.machine import GIB, TESTED, Machine
from cellduality_plugin.openrlhf_hooks.doctor.run import Run

ON_CPU = ("cellduality-cpu", "python", "-m")
ON_GPU = ("python", "-m")
SUBMITTED = ("ray", "job", "submit", "--", "python", "-m")


@dataclass(frozen=True)
class World:
    """A folder with rows, configuration, bound agent and model, and the flags of a good run in it."""

    folder: Path
    machine: Machine
    sft: dict[str, object] = field(default_factory=dict)
    rl: dict[str, object] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def model(self) -> Path:
        return self.folder / "model"

    def run(
        self, trainer: str, changes: dict[str, object] | None = None, launch: tuple[str, ...] = ON_CPU, **machine: Any
    ) -> Run:
        """Return the good run with flags changed: None leaves one out, True is a mere flag, {} is the folder."""
        flags = {**(self.rl if trainer == RL else self.sft), **(changes or {})}
        words: list[str] = []
        for name, value in flags.items():
            if value is None:
                continue
            values = [] if value is True else list(value) if isinstance(value, tuple) else [value]
            words += [f"--{name}", *(str(each).replace("{}", str(self.folder)) for each in values)]
        return Run.of(Command.read([*launch, trainer, *words]), dataclasses.replace(self.machine, **machine))


@pytest.fixture
def world(small_world, tmp_path, monkeypatch) -> World:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody is there: models of the hub are not at hand
    folder = tmp_path / "run"
    shutil.copytree(small_world.data, folder / "data")
    shutil.copytree(small_world.model, folder / "model")
    agent = bound_agent_file(folder / "data" / "cellduality.json")
    machine = Machine((3, 11), TESTED, host_memory=24 * GIB, variables={"PATH": os.defpath})
    common: dict[str, object] = {
        "data.input_key": "input", "data.apply_chat_template": True, "data.max_len": 256, "ds.zero_stage": 0,
        "ds.attn_implementation": "sdpa", "ds.param_dtype": "bf16", "ckpt.output_dir": folder / "new",
        "ckpt.path": folder / "checkpoints", "ckpt.save_steps": 10, "logger.tensorboard_dir": folder / "tensorboard",
    }  # fmt: skip
    sft = {
        "model.model_name_or_path": folder / "model", "data.dataset": folder / "data" / "sft.jsonl",
        "data.output_key": "output", "train.batch_size": 2, "train.micro_batch_size": 2, **common,
    }  # fmt: skip
    rl = {
        "actor.model_name_or_path": folder / "model", "data.prompt_dataset": folder / "data" / "rl.jsonl",
        "data.label_key": "label", "train.agent_func_path": agent, "rollout.max_new_tokens": 32,
        "rollout.batch_size": 5, "rollout.n_samples_per_prompt": 2, "rollout.micro_batch_size": 2,
        "train.batch_size": 10, "train.micro_batch_size": 2, "algo.advantage.estimator": "group_norm",
        "algo.kl.use_loss": True, "algo.kl.estimator": "k3", "train.colocate_all": True, "actor.num_gpus_per_node": 1,
        "ref.num_gpus_per_node": 1, "vllm.num_engines": 1, "vllm.sync_backend": "gloo", "vllm.enforce_eager": True,
        **common,
    }  # fmt: skip
    return World(folder, machine, sft, rl)


@pytest.fixture
def said() -> Callable[..., list[Finding]]:
    """Return a function that gives what is found on a run; only of one check, if it is named."""

    def find(run: Run, check: str | None = None) -> list[Finding]:
        return [finding for finding in examine(run) if check in (None, finding.check)]

    return find


__all__ = ["ON_CPU", "ON_GPU", "RL", "SFT", "SUBMITTED", "World"]
