"""Round 1 is GRPO from the SFT checkpoint; each further one labels cells, fits a fresh model, and does GRPO."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.recipes.conftest import value_of

FIRST, REFIT = "check-grpo grpo evaluate", "pseudo sft"
FURTHER = f"{REFIT} {FIRST}"


@pytest.fixture(autouse=True)
def trained(folder: Path, installed: Path, program) -> None:
    """Of the rounds, the second is the best."""
    found = 'case "$*" in */rounds/3*) echo "2 stop" ;; */rounds/2*) echo "2 on" ;; *) echo "1 on" ;; esac'
    program("cellduality", f'if [[ "$1" == rounds ]]; then {found}; fi')
    (folder / "sft").mkdir()


@pytest.fixture
def stages(run, folder, calls) -> Callable[..., tuple[dict[str, str], str]]:
    """Return a function that does rounds and gives ({round: the stages that ran}, what was said)."""

    def found(**variables: str) -> tuple[dict[str, str], str]:
        done = run("rounds", RUN_DIR=str(folder), **variables)
        assert done.returncode == 0, done.stderr
        ran = re.findall(r"--stage \[round (\d)\] ([\w-]+) ", calls())
        return {number: " ".join(stage for at, stage in ran if at == number) for number, _ in ran}, done.stderr

    return found


def test_the_best_becomes_the_policy_and_no_round_follows_one_that_does_not_help(stages, folder):
    ran, said = stages(ROUNDS="5", RL="1", KEEP="best")
    assert ran == {"1": FIRST, "2": FURTHER, "3": FURTHER}
    assert (folder / "grpo" / "config.json").read_text() == f"{folder}/rounds/2/grpo.new\n"
    assert (folder / "tensorboard" / "grpo").resolve() == folder / "rounds" / "2" / "tensorboard" / "grpo"
    assert (folder / ".finished-grpo").exists()
    assert not (folder / "rounds/2/checkpoints").exists()
    assert said.count("pseudo-labels of a task: 5 of 5 cells") == 2
    assert "Kept: round 2." in said


def test_rounds_go_on_where_they_were(stages, folder):
    how = {"RL": "1", "KEEP": "best"}
    stages(ROUNDS="2", **how)
    assert stages(ROUNDS="2", RESUME="1", **how)[0] == {}
    third, _ = stages(ROUNDS="3", RESUME="1", **how)
    assert third == {"1": "evaluate", "2": "evaluate", "3": FURTHER}
    os.utime(folder / "rounds" / ".begun", (0, 0))  # another SFT checkpoint has come since
    (folder / ".finished-sft").touch()
    assert stages(ROUNDS="2", RESUME="1", **how)[0]["1"] == FIRST


def test_self_training_is_pseudo_labels_and_sft_alone(stages, folder):
    assert stages(RL="0", JUDGE="none", KEEP="last", ROUNDS="2")[0] == {"2": REFIT}
    asked = shlex.split((folder / "rounds/2/logs/pseudo.command").read_text())
    assert (value_of("--model", asked), value_of("--judge", asked)) == (str(folder / "sft"), "none")
    assert (folder / "grpo" / "config.json").read_text() == f"{folder}/rounds/2/sft.new\n"


def test_the_last_round_may_be_grpo_alone(stages, folder):
    assert stages(RL="last", ROUNDS="3", KEEP="last")[0] == {"2": REFIT, "3": "check-grpo grpo"}
    assert (folder / "rounds" / "3" / "sft").resolve() == folder / "rounds" / "2" / "sft"


def test_without_a_cell_to_label_grpo_goes_on_from_sft(run, stages, folder):
    how = {"RL": "last", "ROUNDS": "3", "KEEP": "last", "FAILS": "pseudo-label=3"}
    ran, said = stages(**how)
    assert ran == {"2": "pseudo"}
    assert "GRPO goes on from SFT" in said
    assert not (folder / "rounds").exists()
    assert (folder / "grpo" / "config.json").read_text() == f"{folder}/grpo.new\n"
    (folder / "grpo" / "config.json").write_text("as it was")
    stages(RESUME="1", **how)
    assert (folder / "grpo" / "config.json").read_text() == "as it was"  # GRPO is not done again
    assert run("rounds", RUN_DIR=str(folder), **{**how, "FAILS": "pseudo-label=2"}).returncode == 2


def test_where_no_reward_is_fit_cells_are_named_by_what_the_audit_found_and_grpo_is_left_out(stages, folder):
    (folder / "data").mkdir()
    (folder / "data" / "rl_chosen.jsonl").touch()
    assert stages(ROUNDS="3", RL="last", KEEP="last", JUDGE="audited")[0] == {"2": REFIT}
    asked = shlex.split((folder / "rounds/2/logs/pseudo.command").read_text())
    assert value_of("--judge", asked) == f"{folder}/audit/audit.json"
    assert value_of("--config", asked) == f"{folder}/data/cellduality.json"
    assert (folder / "grpo" / "config.json").read_text() == f"{folder}/rounds/2/sft.new\n"


def test_one_round_is_grpo_as_it_was(dry):
    assert dry("rounds", ROUNDS="1") == dry("grpo")
    assert [dry("grpo_duality", ROUNDS=n, RL="1").count(" pseudo-label ") for n in "12"] == [0, 1]
