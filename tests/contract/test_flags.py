"""Every command a recipe prints is one that OpenRLHF's and our own command lines take.

What it takes to repeat the paper's Tables 2 to 6 as well, theme by theme: nobody has run it on the paper's machine.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

import pytest

from cellduality_plugin.openrlhf_hooks.doctor.flags import RL, SFT, read_flags
from data_prep.datasets import DATASETS

PROFILES = sorted(path.stem for path in (Path(__file__).parents[2] / "recipes" / "profiles").glob("*.toml"))

# variable -> a value no profile has, and where OpenRLHF finds it
SETTINGS = {
    "SFT_EPOCHS": ("7", SFT, "train.max_epochs"),
    "SFT_LR": ("7e-6", SFT, "adam.lr"),
    "SFT_BATCH": ("48", SFT, "train.batch_size"),
    "SFT_MICRO_BATCH": ("3", SFT, "train.micro_batch_size"),
    "ACTOR_LR": ("7e-7", RL, "actor.adam.lr"),
    "LR_WARMUP": ("0.07", RL, "actor.lr_warmup_ratio"),
    "ADVANTAGE": ("rloo", RL, "algo.advantage.estimator"),
    "KL": ("7e-2", RL, "algo.kl.init_coef"),
    "CLIP": ("0.17", RL, "actor.eps_clip"),
    "TEMPERATURE": ("0.7", RL, "rollout.temperature"),
    "GROUP_SIZE": ("6", RL, "rollout.n_samples_per_prompt"),
    "ROLLOUT_BATCH": ("96", RL, "rollout.batch_size"),
    "TRAIN_BATCH": ("288", RL, "train.batch_size"),
    "MICRO_BATCH": ("6", RL, "train.micro_batch_size"),
    "EPISODES": ("3", RL, "train.num_episodes"),
    "SAVE_STEPS": ("17", RL, "ckpt.save_steps"),
    "SEED": ("77", RL, "train.seed"),
    "MAX_LEN": ("1234", RL, "data.max_len"),
    "MAX_NEW_TOKENS": ("123", RL, "rollout.max_new_tokens"),
}


def runs(commands: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return the commands that do something, without those that only look at the next."""
    return [list(command) for command in commands if command[:2] != ["cellduality", "doctor"]]


def trainings(commands: Sequence[Sequence[str]], module: str) -> list[list[str]]:
    """Return the flags of every run of a trainer, whatever stands in front of it."""
    return [command[command.index(module) + 1 :] for command in runs(commands) if module in command]


@pytest.mark.parametrize("profile", PROFILES)
def test_reinforcement_learning_is_the_papers(profile, dry_run, parse_trainer):
    args = parse_trainer(RL, trainings(dry_run("grpo_duality", PROFILE=profile), RL)[-1])
    # The paper's, but on a CPU, where dividing by a tiny spread was measured to cost annotation accuracy.
    assert args.algo.advantage.estimator == ("dr_grpo" if profile in ("cpu", "smollm2") else "group_norm")
    assert (args.algo.kl.use_loss, args.algo.kl.estimator) == (True, "k3")
    assert args.actor.loss_agg_mode == "seq-mean-token-mean"
    assert args.train.agent_func_path.endswith(".py")
    assert args.reward.remote_url == ["agent"]
    assert (args.data.input_key, args.data.label_key, args.data.apply_chat_template) == ("input", "label", True)


@pytest.mark.parametrize("profile", PROFILES)
def test_one_preparation_feeds_both_trainers(profile, dry_run, parse_trainer):
    commands = dry_run("grpo_duality", PROFILE=profile)
    [prepare] = [command for command in commands if command[:3] == ["cellduality", "data", "prepare"]]
    data = Path(prepare[prepare.index("--out") + 1])
    sft, rl = (parse_trainer(module, trainings(commands, module)[-1]) for module in (SFT, RL))
    [audit] = [command for command in commands if "audit" in command[:3]]
    chosen = profile != "smollm2"  # a sample of whose cells is too small to choose by
    assert Path(sft.data.dataset) == data / "sft_traces.jsonl"
    assert Path(rl.data.prompt_dataset) == data / ("rl_chosen.jsonl" if chosen else "rl.jsonl")
    assert ("--choose" in audit) == chosen
    if chosen:
        flags = dict(itertools.pairwise(audit))
        assert (flags["--rl-rows"], flags["--chosen-rows"]) == (str(data / "rl.jsonl"), rl.data.prompt_dataset)
        sizes = (rl.rollout.batch_size, rl.rollout.n_samples_per_prompt)
        assert (flags["--rollout-batch"], flags["--samples"]) == tuple(map(str, sizes))
    assert (sft.data.input_key, sft.data.output_key, sft.data.apply_chat_template) == ("input", "output", True)
    assert sft.ckpt.output_dir == f"{rl.actor.model_name_or_path}.new"
    n_rl = int(prepare[prepare.index("--rl-rows") + 1])
    assert n_rl % rl.rollout.batch_size == 0, "a last, smaller rollout can starve a rank"
    folders = [sft.logger.tensorboard_dir, rl.logger.tensorboard_dir, sft.ckpt.path, rl.ckpt.path]
    assert len(set(folders)) == len(folders)


@pytest.mark.parametrize("profile", PROFILES)
def test_the_doctor_examines_the_very_command_that_is_run_next(profile, dry_run):
    commands = dry_run("grpo_duality", PROFILE=profile)
    examined = [command for command in commands if command[:3] == ["cellduality", "doctor", "--"]]
    pairs = [(one, other) for one, other in itertools.pairwise(commands) if one in examined]
    told_first = [] if profile in ("cpu", "smollm2") else examined[:1]
    assert all(one[3:] == other for one, other in pairs if one not in told_first)
    # On GPUs stage 2 is looked at before the hours of stage 1 as well.
    stages = [SFT, SFT, RL] if profile == "cpu" else [SFT, RL] if profile == "smollm2" else [RL, SFT, RL]
    assert [module for command in examined for module in (SFT, RL) if module in command] == stages


@pytest.mark.parametrize("module", [SFT, RL])
@pytest.mark.parametrize("profile", PROFILES)
def test_the_doctor_reads_flags_as_the_trainer_does(profile, module, dry_run, parse_trainer):
    flags = trainings(dry_run("grpo_duality", PROFILE=profile), module)[-1]
    read, wanted = read_flags(module, flags), parse_trainer(module, flags)
    assert read.args is not None
    read.args.logger.wandb.run_name = wanted.logger.wandb.run_name  # the time of day
    assert read.args == wanted
    assert (read.refusals, read.corrections, dict(read.unknown)) == ((), (), {})
    given = {word[2:] for word in flags if word.startswith("--")}
    assert read.given.keys() == given


@pytest.mark.parametrize("profile", PROFILES)
def test_every_setting_can_be_overridden_from_the_environment(profile, dry_run, parse_trainer):
    commands = dry_run("grpo_duality", PROFILE=profile, **{name: value for name, (value, _, _) in SETTINGS.items()})
    args = {module: parse_trainer(module, trainings(commands, module)[-1]) for module in (SFT, RL)}
    found = {name: attrgetter(path)(args[module]) for name, (_, module, path) in SETTINGS.items()}
    assert found == {name: type(found[name])(value) for name, (value, _, _) in SETTINGS.items()}


@pytest.mark.parametrize("profile", PROFILES)
def test_data_settings_and_the_base_model_can_be_overridden_too(profile, dry_run, tmp_path):
    cells = tmp_path / "my cells.h5ad"
    cells.touch()
    values = {
        "DATASET": str(cells), "LABEL_COLUMN": "cell type", "TASKS": "cell_type_annotation=2",
        "REWARDS": "cell_type_annotation=likelihood", "WEIGHTS": "cell_type_annotation=5", "TOP_GENES": "33",
        "N_GENES": "444", "HIDDEN": "0.5", "N_LABELLED": "99", "MAX_CELLS": "888", "HELD_OUT": "cell type=a b",
        "N_RL": "1056", "SFT_VIEWS": "9", "DUAL_TEMPERATURE": "0.3", "VALIDITY_POWER": "2.5", "VALIDITY_SHARE": "0.45",
    }  # fmt: skip
    commands = dry_run("grpo_duality", PROFILE=profile, BASE_MODEL="some/model", **values)
    [prepare] = [command for command in commands if command[:3] == ["cellduality", "data", "prepare"]]
    assert set(values.values()) <= set(prepare)
    [sft] = [command for command in runs(commands) if SFT in command]
    [*_, made] = [command for command in commands if command[:2] == ["cellduality", "model"]]
    assert made[2:4] == ["fetch", "some/model"], "known by its folder from here on"
    assert made[5] in sft


def test_the_teacher_and_what_passes_can_be_chosen_and_without_one_sft_sees_bare_answers(dry_run, parse_trainer):
    chosen = {
        "TEACHER": "some/model", "TEACHER_URL": "http://localhost:1/v1", "CANDIDATES": "7", "TRACE_SIMILARITY": "0.65",
        "SFT_DIRECTIONS": "primal",
    }  # fmt: skip
    words = [word for command in dry_run("traces", PROFILE="cpu", **chosen) for word in command]
    assert {*chosen.values(), "--fill"} <= set(words)
    words = [word for command in dry_run("traces", PROFILE="cpu", FILL="0", TRACES="0") for word in command]
    assert ("--fill" in words, "--no-traces" in words) == (False, True)
    commands = dry_run("grpo_duality", PROFILE="cpu", TEACHER="none")
    assert not any("traces" in command for command in commands)
    assert Path(parse_trainer(SFT, trainings(commands, SFT)[-1]).data.dataset).name == "sft.jsonl"


def test_several_sets_are_parted_by_blanks_and_held_out_kinds_by_semicolons(dry_run):
    variables = {"DATASET": "one two", "HELD_OUT": "one:cell_type=B cell;two:drug=a, b"}
    [prepare] = [words for words in dry_run("prepare", PROFILE="cpu", **variables) if "prepare" in words]
    assert prepare[3:5] == ["one", "two"]
    kept_out = [value for flag, value in itertools.pairwise(prepare) if flag == "--held-out"]
    assert kept_out == ["one:cell_type=B cell", "two:drug=a, b"]


@pytest.mark.parametrize(
    ("recipe", "extra"),
    [
        ("sft", ["--train.seed", "4242"]), ("grpo", ["--train.seed", "4242"]), ("prepare", ["--labelled", "77"]),
        ("evaluate", ["--samples", "2"]),
    ],
)  # fmt: skip
def test_further_arguments_come_last_and_win(recipe, extra, dry_run):
    assert [words for words in runs(dry_run(recipe, *extra, PROFILE="cpu")) if words[-2:] == extra]


def test_resuming_adds_the_flag_that_loads_the_checkpoint(dry_run, parse_trainer):
    commands = (dry_run("grpo", PROFILE="cpu", RESUME=resume) for resume in "01")
    fresh, resumed = (parse_trainer(RL, trainings(each, RL)[-1]) for each in commands)
    assert (fresh.ckpt.load_enable, resumed.ckpt.load_enable) == (False, True)
    assert fresh.ckpt.path == resumed.ckpt.path
    assert fresh.actor.model_name_or_path == resumed.actor.model_name_or_path, "the reference policy must not move"


def test_several_nodes_scale_together(dry_run, parse_trainer):
    args = parse_trainer(RL, trainings(dry_run("grpo_duality", PROFILE="multinode", NODES="3"), RL)[-1])
    assert args.actor.num_nodes == args.ref.num_nodes == 3
    assert args.vllm.num_engines == 3 * args.actor.num_gpus_per_node
    assert args.rollout.batch_size * args.rollout.n_samples_per_prompt % args.train.batch_size == 0


@pytest.mark.parametrize("profile", PROFILES)
def test_our_own_commands_parse(profile, dry_run, parse_own):
    seen = {parse_own(words) for words in dry_run("grpo_duality", PROFILE=profile) if "cellduality" in words}
    assert {"data prepare", "doctor", "evaluate", "report"} <= seen
    several = dry_run("rounds", PROFILE=profile, ROUNDS="3", RL="1", KEEP="best")
    seen = {parse_own(words) for words in several if "cellduality" in words}
    assert seen == {"configure", "doctor", "evaluate", "pack", "pseudo-label", "rounds"}


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
def test_settings_of_a_theme_are_the_papers(name, commands, parse_trainer, capsys):
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


def test_commands_of_a_theme_parse_and_tables_by_set_come_last(commands, parse_own):
    assert Path(commands[-1][1]).is_file()
    assert commands[-1][2:] == ["/runs of/paper", "--split", "test"]
    seen = {parse_own(words) for words in commands if words[0] == "cellduality"}
    before = {"data prepare", "model fetch", "traces sample", "traces filter"}
    assert seen == before | {"doctor", "configure", "evaluate", "arms", "pack"}


def test_five_seeds_each_from_a_model_of_its_own_unless_others_are_chosen(dry_run):
    found = dry_run("reproduce_paper", THEMES="identity", RUNS_DIR="/runs of/paper")
    assert (len(trainings(found, SFT)), len(trainings(found, RL))) == (5, 10)
    chosen = {"THEMES": "identity", "IDENTITY_SETS": "he_2020_liver", "ARMS": "duality", "SEEDS": "1"}
    found = dry_run("reproduce_paper", **chosen, MAX_CELLS="", N_LABELLED="77")
    [prepare] = [command for command in found if command[1:3] == ["data", "prepare"]]
    assert prepare[3:5] == ["he_2020_liver", "--out"]
    assert (value(prepare, "--max-cells"), value(prepare, "--labelled")) == ("", "77")
    assert len(trainings(found, RL)) == 1
