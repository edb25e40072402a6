"""What it takes to repeat the paper's Tables 2 to 6, command by command: nobody has run it on the paper's machine."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest

from data_prep.datasets import DATASETS

SFT, RL = "openrlhf.cli.train_sft", "openrlhf.cli.train_ppo_ray"
THEMES = {
    "identity": ("cell_type_annotation", "conditional_cell_generation"),
    "dynamics": ("drug_sensitivity_prediction", "perturbation_response_generation"),
}


@pytest.fixture
def commands(dry_run):
    """Of one seed; setting up is no command of a theme."""
    found = dry_run("reproduce_paper", SEEDS="42", RUNS_DIR="/runs of/paper", PROFILE="a6000x8")
    return [command for command in found if command[:2] != ["bash", "recipes/setup.sh"]]


def of_theme(commands: Sequence[Sequence[str]], name: str) -> list[list[str]]:
    return [list(command) for command in commands if any(f"/paper/{name}" in word for word in command)]


def trainings(commands: Sequence[Sequence[str]], module: str) -> list[list[str]]:
    """Return the flags of every run of a trainer."""
    return [
        list(command[command.index(module) + 1 :])
        for command in commands
        if module in command and command[:2] != ["cellduality", "doctor"]
    ]


def value(command: Sequence[str], flag: str) -> str:
    return command[list(command).index(flag) + 1]


@pytest.mark.parametrize(("name", "tasks"), THEMES.items())
def test_a_theme_prepares_the_papers_sets_for_its_two_tasks(name, tasks, commands):
    [prepare] = [command for command in of_theme(commands, name) if command[1:3] == ["data", "prepare"]]
    sets = list(itertools.takewhile(lambda word: not word.startswith("--"), prepare[3:]))
    assert {task for each in sets for task in DATASETS[each].tasks} == set(tasks)
    assert "--gold-for-monitoring" in prepare
    assert "--held-out" not in prepare
    assert (value(prepare, "--rewards"), value(prepare, "--validity-power")) == ("", "0")
    assert (value(prepare, "--validity-share"), value(prepare, "--small-classes")) == ("0", "drop")
    for flag in ("--max-cells", "--labelled"):
        told = dict(item.split("=") for item in value(prepare, flag).split(","))
        assert told.keys() <= DATASETS.keys()
        assert flag == "--max-cells" or told.keys() >= {each for each in sets if DATASETS[each].split.rule != "whole"}


@pytest.mark.parametrize("name", THEMES)
def test_both_arms_start_from_the_one_sft_checkpoint_and_differ_in_their_reward_alone(name, commands, parse_trainer):
    own = of_theme(commands, name)
    [sft] = [parse_trainer(SFT, flags) for flags in trainings(own, SFT)]
    oracle, ours = (parse_trainer(RL, flags) for flags in trainings(own, RL))
    folder = Path(sft.ckpt.output_dir).parent
    for arm, args in (("oracle", oracle), ("duality", ours)):
        # A link to the shared checkpoint, which `benchmark_table6.sh` lays.
        assert Path(args.actor.model_name_or_path) == folder / "arms" / arm / "sft"
        assert Path(args.train.agent_func_path) == folder / "data" / f"{arm}.agent.py"
        places = (args.actor, args.ckpt, args.logger, args.data)
        assert all(f"/arms/{arm}/" in str(vars(place)) for place in places)
    rewards = [value(command, "--rewards") for command in own if command[1:2] == ["configure"]]
    assert rewards == ["*=oracle", "*=duality"]
    for args in (oracle, ours):
        args.actor.model_name_or_path = args.ckpt.output_dir = args.ckpt.path = args.train.agent_func_path = ""
        args.logger.tensorboard_dir = args.logger.wandb.run_name = args.data.prompt_dataset = ""
    assert oracle == ours


@pytest.mark.parametrize("name", THEMES)
def test_settings_are_the_papers(name, commands, parse_trainer, capsys):
    own = of_theme(commands, name)
    [sft] = [parse_trainer(SFT, flags) for flags in trainings(own, SFT)]
    assert (sft.train.max_epochs, sft.adam.lr) == (3, 1e-5)
    assert [command[3] for command in own if command[1:3] == ["model", "fetch"]] == ["meta-llama/Llama-3.2-3B-Instruct"]
    assert sft.model.model_name_or_path.endswith("/base")
    assert sft.train.batch_size % (sft.train.micro_batch_size * 8) == 0
    for flags in trainings(own, RL):
        args = parse_trainer(RL, flags)
        assert args.rollout.n_samples_per_prompt == 8
        assert (args.algo.advantage.estimator, args.algo.kl.use_loss) == ("group_norm", True)
        assert args.actor.num_gpus_per_node * args.actor.num_nodes == 8
        # Rows are padded: 10 bytes of logits a word of Llama's 128,256, 21 GB of a card's 48 at the most.
        assert args.train.micro_batch_size * args.data.max_len <= 16384
        assert args.data.max_len == sft.data.max_len
    assert capsys.readouterr().out == "", "OpenRLHF corrects a flag"


@pytest.mark.parametrize("name", THEMES)
def test_base_sft_and_both_arms_are_evaluated_and_compared(name, commands):
    own = of_theme(commands, name)
    [evaluate] = [command for command in own if command[1:2] == ["evaluate"]]
    models = [word.split("=")[0] for flag, word in itertools.pairwise(evaluate) if flag == "--model"]
    assert models == ["base", "SFT", "oracle", "duality"]
    assert own[-1][:3] == ["cellduality", "arms", f"{value(evaluate, '--out')}/metrics.json"]


def test_our_own_commands_parse_and_tables_by_set_come_last(commands, parse_own):
    assert Path(commands[-1][1]).is_file()
    assert commands[-1][2:] == ["/runs of/paper", "--split", "test"]
    seen = {parse_own(words) for words in commands if words[0] == "cellduality"}
    assert seen == {
        "data prepare", "traces sample", "traces filter", "doctor", "configure", "evaluate", "arms", "pack",
        "model fetch",
    }  # fmt: skip


def test_five_seeds_each_from_a_model_of_its_own_unless_others_are_chosen(dry_run):
    found = dry_run("reproduce_paper", THEMES="identity", RUNS_DIR="/runs of/paper")
    assert (len(trainings(found, SFT)), len(trainings(found, RL))) == (5, 10)
    chosen = {"THEMES": "identity", "IDENTITY_SETS": "he_2020_liver", "ARMS": "duality", "SEEDS": "1"}
    found = dry_run("reproduce_paper", **chosen, MAX_CELLS="", N_LABELLED="77")
    [prepare] = [command for command in found if command[1:3] == ["data", "prepare"]]
    assert prepare[3:5] == ["he_2020_liver", "--out"]
    assert (value(prepare, "--max-cells"), value(prepare, "--labelled")) == ("", "77")
    assert len(trainings(found, RL)) == 1
