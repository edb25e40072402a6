"""A good run of each stage, and what becomes of it when one thing is changed."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cellduality_plugin.agent_file import bound_agent_file
from cellduality_plugin.files import read_jsonl, write_jsonl
from cellduality_plugin.openrlhf_hooks.doctor.checks import examine
from cellduality_plugin.openrlhf_hooks.doctor.flags import RL, SFT
from cellduality_plugin.openrlhf_hooks.doctor.machine import GIB, TESTED, Machine
from cellduality_plugin.openrlhf_hooks.doctor.run import Run

COMMON = """
    --data.input_key input --data.apply_chat_template --data.max_len 256 --ds.zero_stage 0 --ds.attn_implementation sdpa
    --ds.param_dtype bf16 --ckpt.output_dir {}/new --ckpt.path {}/checkpoints --ckpt.save_steps 10
    --logger.tensorboard_dir {}/tensorboard --train.micro_batch_size 2
"""
FLAGS = {
    SFT: f"""{COMMON}
    --model.model_name_or_path {{}}/model --data.dataset {{}}/data/sft.jsonl --data.output_key output
    --train.batch_size 2
""",
    RL: f"""{COMMON}
    --actor.model_name_or_path {{}}/model --data.prompt_dataset {{}}/data/rl.jsonl --data.label_key label
    --train.agent_func_path {{}}/data/cellduality.agent.py --rollout.max_new_tokens 32 --rollout.batch_size 5
    --rollout.n_samples_per_prompt 2 --rollout.micro_batch_size 2 --train.batch_size 10
    --algo.advantage.estimator group_norm --algo.kl.use_loss --algo.kl.estimator k3 --train.colocate_all
    --actor.num_gpus_per_node 1 --ref.num_gpus_per_node 1 --vllm.num_engines 1 --vllm.sync_backend gloo
    --vllm.enforce_eager
""",
}


@dataclass(frozen=True)
class World:
    """A folder with rows, configuration, bound agent and model."""

    folder: Path
    machine: Machine

    def run(self, trainer: str, words: str = "", launch: str = "cellduality-cpu python -m", **machine: Any) -> Run:
        """Return the good run with further flags; ~NAME leaves one of its own out, {} is the folder."""
        more = shlex.split(words.replace("{}", str(self.folder)))
        flags = [flag.split() for flag in re.split(r"\s+(?=--)", FLAGS[trainer].strip())]
        kept = [word for flag in flags if f"~{flag[0][2:]}" not in more for word in flag]
        own = [word.replace("{}", str(self.folder)) for word in kept]
        given = [word for word in more if not word.startswith("~")]
        return Run([*shlex.split(launch), trainer, *own, *given], dataclasses.replace(self.machine, **machine))

    def found(self, *run: Any, files: Any = None, settings: Any = None, **more: Any) -> str:
        """Return what is found on the run: each severity and check once, in order of the alphabet.

        Files are written before (None: deleted), and settings of the configuration changed.
        """
        for name, text in (files or {}).items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink() if text is None else path.write_text(text)
        self.configure(**(settings or {}))
        return ", ".join(sorted({f"{finding.severity} {finding.check}" for finding in examine(self.run(*run, **more))}))

    def configure(self, tasks: dict[str, Any] | None = None, **settings: Any) -> None:
        """Change settings of the configuration; those of a task are added to its others."""
        if tasks or settings:
            path = self.folder / "data" / "cellduality.json"
            values = json.loads(path.read_text())
            for name, of_task in (tasks or {}).items():
                values["tasks"][name] |= of_task
            path.write_text(json.dumps({**values, **settings}))


@pytest.fixture
def world(small_world, tmp_path, monkeypatch) -> World:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody is there: models of the hub are not at hand
    folder = tmp_path / "run"
    shutil.copytree(small_world.data, folder / "data")
    shutil.copytree(small_world.model, folder / "model")
    rows = [row for row in read_jsonl(folder / "data/rl.jsonl") if "perturbation_identification" not in row["label"]]
    write_jsonl(folder / "data/rl.jsonl", rows)  # five: a rollout batch
    bound_agent_file(folder / "data" / "cellduality.json")
    return World(folder, Machine((3, 11), TESTED, host_memory=24 * GIB, variables={"PATH": os.defpath}))
