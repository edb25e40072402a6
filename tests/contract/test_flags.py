"""Every command a recipe prints is one that OpenRLHF's and our own command lines take."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

import pytest

from cellduality_plugin.openrlhf_hooks.doctor.flags import read_flags

PROFILES = sorted(path.stem for path in (Path(__file__).parents[2] / "recipes" / "profiles").glob("*.toml"))
SFT, RL = "openrlhf.cli.train_sft", "openrlhf.cli.train_ppo_ray"

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


def flags_of(commands: Sequence[Sequence[str]], module: str) -> list[str]:
    """Return the flags of the last command that runs `module`, whatever stands in front of it."""
    *_, command = (command for command in runs(commands) if module in command)
    if command[0] == "ray":
        assert command[: command.index("--")][:3] == ["ray", "job", "submit"]
    return list(command[command.index(module) + 1 :])


@pytest.mark.parametrize("profile", PROFILES)
def test_reinforcement_learning_is_the_papers(profile, dry_run, parse_trainer):
    flags = flags_of(dry_run("grpo_duality", PROFILE=profile), RL)
    args = parse_trainer(RL, flags)
    # The paper's, but on a CPU, where dividing by a tiny spread was measured to cost annotation accuracy.
    assert args.algo.advantage.estimator == ("dr_grpo" if profile in ("cpu", "smollm2") else "group_norm")
    assert (args.algo.kl.use_loss, args.algo.kl.estimator) == (True, "k3")
    assert args.actor.loss_agg_mode == "seq-mean-token-mean"
    assert args.train.agent_func_path.endswith(".py")
    assert args.reward.remote_url == ["agent"]
    assert args.data.apply_chat_template
    assert (args.data.input_key, args.data.label_key) == ("input", "label")


@pytest.mark.parametrize("profile", PROFILES)
def test_one_preparation_feeds_both_trainers(profile, dry_run, parse_trainer):
    commands = dry_run("grpo_duality", PROFILE=profile)
    [prepare] = [command for command in commands if command[:3] == ["cellduality", "data", "prepare"]]
    data = Path(prepare[prepare.index("--out") + 1])
    sft, rl = (parse_trainer(module, flags_of(commands, module)) for module in (SFT, RL))
    [audit] = [command for command in commands if "audit" in command[:3]]
    chosen = profile != "smollm2"  # a sample of whose cells is too small to choose by
    assert Path(sft.data.dataset) == data / "sft_traces.jsonl"
    assert Path(rl.data.prompt_dataset) == data / ("rl_chosen.jsonl" if chosen else "rl.jsonl")
    assert ("--choose" in audit) == chosen
    if chosen:
        flags = dict(itertools.pairwise(audit))
        assert (flags["--rl-rows"], flags["--chosen-rows"]) == (str(data / "rl.jsonl"), rl.data.prompt_dataset)
        assert (flags["--rollout-batch"], flags["--samples"]) == (
            str(rl.rollout.batch_size), str(rl.rollout.n_samples_per_prompt),
        )  # fmt: skip
    assert sft.data.apply_chat_template
    assert (sft.data.input_key, sft.data.output_key) == ("input", "output")
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
    flags = flags_of(dry_run("grpo_duality", PROFILE=profile), module)
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
    args = {module: parse_trainer(module, flags_of(commands, module)) for module in (SFT, RL)}
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
    assert Path(parse_trainer(SFT, flags_of(commands, SFT)).data.dataset).name == "sft.jsonl"


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
    fresh, resumed = (parse_trainer(RL, flags_of(dry_run("grpo", PROFILE="cpu", RESUME=resume), RL)) for resume in "01")
    assert (fresh.ckpt.load_enable, resumed.ckpt.load_enable) == (False, True)
    assert fresh.ckpt.path == resumed.ckpt.path
    assert fresh.actor.model_name_or_path == resumed.actor.model_name_or_path, "the reference policy must not move"


def test_several_nodes_scale_together(dry_run, parse_trainer):
    args = parse_trainer(RL, flags_of(dry_run("grpo_duality", PROFILE="multinode", NODES="3"), RL))
    assert args.actor.num_nodes == args.ref.num_nodes == 3
    assert args.vllm.num_engines == 3 * args.actor.num_gpus_per_node
    assert args.rollout.batch_size * args.rollout.n_samples_per_prompt % args.train.batch_size == 0


@pytest.mark.parametrize("profile", PROFILES)
def test_our_own_commands_parse(profile, dry_run, parse_own):
    seen = {parse_own(words) for words in dry_run("grpo_duality", PROFILE=profile) if "cellduality" in words}
    assert {"data prepare", "doctor", "evaluate", "report"} <= seen
    several = dry_run("rounds", PROFILE=profile, ROUNDS="3", RL="1", KEEP="best")
    rounds = [words for words in several if "cellduality" in words]
    known = {"configure", "doctor", "evaluate", "pack", "pseudo-label", "rounds"}
    assert {parse_own(words) for words in rounds} == known
