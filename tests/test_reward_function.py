"""Rewards as a function: what TRL gets is what a run of ours would give."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cellduality_plugin.config import Config
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.policies.local import LocalModel, LocalPolicy
from cellduality_plugin.reward_function import DualReward
from cellduality_plugin.scoring import Scorer
from cellduality_plugin.tasks import TASKS

SCRIPT = Path(__file__).parents[1] / "recipes" / "examples" / "trl_grpo.py"
ANSWERS = ("<think></think><answer>CD19+ B</answer>", "<think></think><answer>T</answer>", "no answer")


@pytest.fixture(scope="module")
def policy(small_world) -> LocalPolicy:
    return LocalPolicy(LocalModel.load(small_world.model, max_model_len=512, max_new_tokens=6), temperature=0.0, seed=0)


def test_each_completion_is_paid_as_in_its_group_wherever_it_stands(small_world, policy, tmp_path):
    shutil.copytree(small_world.data, tmp_path / "data")
    tasks = {name: {"pair": name, "reward": "posterior"} for name in TASKS}
    Config.read({"tasks": tasks}).save(tmp_path / "data" / "posterior.json")
    config = Config.load(tmp_path / "data" / "posterior.json")
    labels = [row["label"] for row in read_jsonl(small_world.data / "rl.jsonl")]

    async def alone(label: str) -> list[float]:
        scorer = Scorer(config)
        return [score.reward for score in await scorer.score_all(ANSWERS, scorer.group(label), policy)]

    async def mixed() -> list[float]:
        completions = [[{"role": "assistant", "content": text}] for text in ANSWERS for _ in labels]
        return await DualReward(config, policy)([""] * len(completions), completions, labels * len(ANSWERS), other=0)

    expected = [asyncio.run(alone(label)) for label in labels]
    found = asyncio.run(mixed())
    assert found == [rewards[place] for place in range(len(ANSWERS)) for rewards in expected]
    assert 0.0 in found
    assert max(found) > 0.0


def test_a_model_in_training_stays_in_training(small_world):
    model = LocalModel.load(small_world.model, max_model_len=512, max_new_tokens=2)
    model._model.train()
    asyncio.run(LocalPolicy(model, temperature=0.0, seed=0).log_probs("Name the type", "T"))
    assert model._model.training


def test_trl_trains_on_it(small_world, tmp_path):
    shutil.copytree(small_world.data, tmp_path / "data")
    shutil.copytree(small_world.model, tmp_path / "sft")
    words = ["--run", tmp_path, "--out", tmp_path / "out", "--steps", 1, "--batch", 4, "--group", 2]
    command = [sys.executable, SCRIPT, *words, "--max-len", 512, "--max-new-tokens", 4]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [step] = [
        logs["rewards/cellduality/mean"]
        for logs in json.loads((tmp_path / "out" / "trainer_state.json").read_text())["log_history"]
        if "rewards/cellduality/mean" in logs
    ]
    assert step == 0.0, "an untrained model answers nothing"
    assert (tmp_path / "out" / "model.safetensors").is_file()
