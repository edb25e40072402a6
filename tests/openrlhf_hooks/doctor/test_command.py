"""A command is taken apart whatever stands in front of the trainer."""

from __future__ import annotations

import json

import pytest

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.openrlhf_hooks.doctor.command import RL, SFT, Command

FLAGS = ["--data.max_len", "64"]


@pytest.mark.parametrize(
    "front",
    [
        [],
        ["python", "-m"],
        ["cellduality-cpu", "python3", "-m"],
        ["/opt/venv/bin/cellduality-cpu", "python", "-m"],
        ["HF_HOME=/models", "python", "-m"],
        ["env", "HF_HOME=/models", "nohup", "python", "-m"],
        ["ray", "job", "submit", "--address", "http://a:8265", "--runtime-env-json", "{}", "--", "python3", "-m"],
        ["deepspeed", "--module"],
    ],
)
@pytest.mark.parametrize("trainer", [SFT, RL])
def test_the_trainer_and_its_flags_are_found(front, trainer):
    found = Command.read([*front, trainer, *FLAGS])
    assert (found.trainer, list(found.flags), list(found.words)) == (trainer, FLAGS, [*front, trainer, *FLAGS])
    assert found.on_cpu == any(word.endswith("cellduality-cpu") for word in front)
    assert found.submitted == ("submit" in front)
    assert found.variables == ({"HF_HOME": "/models"} if "HF_HOME=/models" in front else {})


@pytest.mark.parametrize(
    ("front", "processes"),
    [
        (["python", "-m"], 1),
        (["torchrun", "--standalone", "--nproc-per-node", "8", "-m"], 8),
        (["torchrun", "--nproc_per_node=4", "--nnodes=2", "-m"], 8),
        (["python", "-m", "torch.distributed.run", "--nproc-per-node", "3", "-m"], 3),
        (["torchrun", "-m"], 1),
        (["torchrun", "--nproc-per-node", "gpu", "-m"], None),
        (["torchrun", "--nnodes", "1:4", "--nproc-per-node", "2", "-m"], None),
        (["deepspeed", "--num_gpus", "4", "--module"], 4),
        (["deepspeed", "--include", "localhost:0,1", "--module"], None),
    ],
)
def test_processes_are_those_the_launcher_starts(front, processes):
    assert Command.read([*front, SFT, *FLAGS]).processes == processes


def test_a_job_brings_variables_and_a_folder():
    environment = {"env_vars": {"CELLDUALITY_CONFIG": "/shared/a b.json", "N": 1}, "working_dir": "."}
    for words in (["--runtime-env-json", json.dumps(environment)], ["--runtime-env-json=" + json.dumps(environment)]):
        found = Command.read(["ray", "job", "submit", *words, "--", "python", "-m", RL])
        assert dict(found.variables) == {"CELLDUALITY_CONFIG": "/shared/a b.json", "N": "1"}
        assert found.unreadable == ""


@pytest.mark.parametrize(
    ("words", "unreadable"),
    [
        (["--runtime-env-json", "{"], "--runtime-env-json"),
        (["--runtime-env-json", "[]"], "--runtime-env-json"),
        (["--runtime-env", "env.yaml"], "--runtime-env"),
        ([], ""),
    ],
)
def test_what_cannot_be_read_of_a_job_is_named(words, unreadable):
    assert Command.read(["ray", "job", "submit", *words, "--", "python", "-m", RL]).unreadable == unreadable


@pytest.mark.parametrize("words", [[], ["python", "train.py"], ["python", "-m", "openrlhf.cli.train_dpo"]])
def test_another_command_is_refused_in_one_line(words):
    with pytest.raises(CellDualityError, match=r"runs no trainer.*cellduality doctor -- python -m"):
        Command.read(words)
