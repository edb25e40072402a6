"""The recipes when they are only asked what they would do: every command, in order, and no effect."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

LAST = {"RL": "last", "ROUNDS": "3", "KEEP": "last"}


def commands(printed: str) -> list[list[str]]:
    """Return the words of every command that does something, without those that only look at the next."""
    found = [shlex.split(line) for line in printed.splitlines()]
    return [words for words in found if words[:2] != ["cellduality", "doctor"]]


def told(flag: str, words: Sequence[str]) -> list[str]:
    return [value for name, value in itertools.pairwise(words) if name == flag]


def rollouts(printed: str) -> list[str]:
    return [" ".join(words) for words in commands(printed) if "openrlhf.cli.train_ppo_ray" in words]


@pytest.mark.parametrize(
    ("recipe", "variables", "expected"),
    [
        ("prepare", {"PRETRAIN_VIEWS": "7", "CLUSTERS": "9"}, "--pretrain-views 7 --clusters 9 "),
        ("prepare", {"GOLD": "1"}, "--gold-for-monitoring"),
        ("prepare", {}, "drug_sensitivity_prediction=posterior"),
        ("pretrain", {"PRETRAIN_EPOCHS": "6"}, "--train.max_epochs 6 "),
        ("pretrain", {"PRETRAIN_LR": "8e-5"}, "--adam.lr 8e-5 "),
        ("benchmark_cells", {"SIZES": "5 6"}, "--sizes 5 6 "),
        ("benchmark_reward", {"KINDS": "likelihood"}, "--actor.adam.lr 0 "),
        ("benchmark_sampler", {"CONCURRENCY": "5"}, "--concurrency 5 "),
        ("benchmark_server", {"SECONDS": "7"}, "--clients 64 --seconds 7 "),
        ("benchmark_server", {}, "--clients 64 --seconds 60 "),
        ("benchmark_traces", {"SEEDS": "3"}, "--directions primal --fill --no-traces "),
        ("smoke_gpu", {}, "smoke.py card cpu "),
        ("benchmark_seeds", {"ROUNDS": "1", "SEEDS": "3 5"}, "u/3/grpo.new .*seed 3 .*u/5/grpo.new .*seed 5 "),
        ("grpo", {"profile": "a6000x8", "GPUS": "4"}, "--vllm.num_engines 4 "),
        ("grpo", {"profile": "a6000x8", "GPUS": "8", "TENSOR_PARALLEL": "2"}, "--vllm.num_engines 4 "),
        # Training takes what the audit chose, unless it is told what.
        ("grpo_duality", {"ROUNDS": "1"}, "--choose .*ray .*/data/chosen.agent.py .*/data/rl_chosen.jsonl "),
        (
            "grpo_duality",
            {"ROUNDS": "1", "REWARDS": "*=duality"},
            "^((?!--choose).)*/data/cellduality.agent.py .*/data/rl.jsonl ",
        ),
        ("grpo_duality", {"ROUNDS": "1", "AUDIT": "0"}, "/data/cellduality.agent.py .*/data/rl.jsonl "),
        # A refit is of a fresh model; GRPO after it can leave out the tasks whose cells it named.
        ("rounds", {"RL": "1", "ROUNDS": "2"}, "_path [^ ]+/cpu/pretrained .*dataset [^ ]+/rounds/2/pseudo.jsonl "),
        ("rounds", {"RL": "1", "ROUNDS": "2", "PRETRAIN": "0"}, "torchrun .*_path [^ ]+/cpu/base "),
        ("rounds", {"RL": "1", "ROUNDS": "2", "REFIT_FROM": "policy"}, "torchrun .*_path [^ ]+/rounds/1/grpo "),
        ("rounds", LAST | {"RL_LABELS": "0"}, "--rl-rows .*prompt_dataset [^ ]+/rounds/2/pseudo.rl.jsonl "),
        ("rounds", LAST | {"RL_LABELS": "1"}, "^((?!--rl-rows).)*prompt_dataset [^ ]+/data/rl_chosen.jsonl "),
    ],
)
def test_a_dry_run_prints_commands_and_touches_nothing(recipe, variables, expected, dry):
    printed = dry(recipe, **variables).replace("\\ ", "_")  # as in the path of the project
    assert re.search(expected, printed, re.DOTALL)
    assert ("--gold-for-monitoring" in printed) == ("GOLD" in variables or recipe == "benchmark_reward")


def test_a_dry_run_of_everything_runs_the_stages_in_order(dry):
    printed = dry("grpo_duality", ROUNDS="1")
    torchrun, ray = "cellduality-cpu torchrun", "cellduality-cpu python"
    marks = ["data prepare", "traces sample", "traces filter", "small-llama"]
    marks += [f"cellduality doctor -- {torchrun}", f"\n{torchrun}"] * 2
    marks += ["cellduality audit", f"cellduality doctor -- {ray}", f"\n{ray}", "evaluate", "cellduality card", "report"]
    assert re.search(" .*?".join(map(re.escape, marks)), printed, re.DOTALL)


@pytest.mark.parametrize(("profile", "wanted", "stages"), [("cpu", "", 2), ("cpu", "0", 1), ("smollm2", "", 1)])
def test_a_model_made_from_nothing_sees_cells_before_labels_and_sft_goes_on(profile, wanted, stages, dry):
    lines = commands(dry("grpo_duality", profile=profile, PRETRAIN=wanted, ROUNDS="1"))
    trained = [words for words in lines if words[:2] == ["cellduality-cpu", "torchrun"]]
    for flag, names in (
        ("--model.model_name_or_path", ["base", "pretrained"][:stages]),
        ("--data.dataset", ["pretrain.jsonl", "sft_traces.jsonl"][-stages:]),
        ("--ckpt.output_dir", ["pretrained.new", "sft.new"][-stages:]),
    ):
        assert [Path(path).name for words in trained for path in told(flag, words)] == names
    assert [words[1] for words in lines].count("model") == 1, "made where it is needed first"
    assert any("--pretrain-views" in words for words in lines) == (stages == 2)
    [evaluated] = [words for words in lines if "evaluate" in words]
    first = told("--model", evaluated)[0].partition("=")[0]
    assert first == ("SFT" if profile == "cpu" else "base")  # what has not learned a word is left out


def test_any_name_will_do_for_the_run_folder_and_a_relative_one_is_made_absolute(dry, project):
    """Workers run elsewhere."""
    name = """it's a "quoted" run;true $HOME *"""
    words = [word for line in commands(dry("grpo", RUN_DIR=f"runs/{name}")) for word in line]
    assert str(project.parent / "runs" / name / "data" / "rl_chosen.jsonl") in words
    assert str(project.parent / "runs" / name / "grpo.new") in words


def test_table_6_trains_every_arm_of_every_seed_from_one_sft_checkpoint(dry, project):
    arms, rewards = "oracle posterior-votes duality-frozen default", "*=likelihood"
    folder = str(project.parent / "six")
    printed = dry("benchmark_table6", SEEDS="3 5", ARMS=arms, REWARDS=rewards, RUNS_DIR=folder)
    lines, training = commands(printed), "\n".join(rollouts(printed))
    assert re.findall(r"six/(\d)/arms/([a-z-]+)/grpo.new", training) == [*itertools.product("35", arms.split())]
    assert sum("openrlhf.cli.train_sft" in words for words in lines) == 2 * 2
    configured = [words[3:] for words in lines if words[:2] == ["cellduality", "configure"]][:4]
    votes = "cell_type_annotation,drug_exposure_prediction,drug_sensitivity_prediction"
    address = ["--dual-url", "http://127.0.0.1:8424/v1", "--dual-model", "sft"]
    assert [words[:-2] for words in configured] == [
        ["--votes", "", "--rewards", "*=oracle"],
        ["--votes", votes, "--rewards", "*=posterior"],
        [*address, "--dual-key-variable", "VLLM_API_KEY", "--votes", "", "--rewards", "*=duality"],
        [],
    ]
    assert sum(f"--model {arm}=" in printed for arm in ("SFT", *arms.split())) == 5
    assert "--model base=" not in printed, "it has not learned a word"


def test_few_labels_are_drawn_anew_for_every_seed_and_every_arm_starts_from_the_same_checkpoint(dry, project):
    arms = "oracle default paper self-train"
    printed = dry("benchmark_labels", LABELS="20 40", SEEDS="3 5", ARMS=arms, ALL_RUNS=str(project.parent / "few"))
    lines = commands(printed)
    drawn = [
        [value for flag in ("--labelled", "--label-seed", "--seed") for value in told(flag, words)]
        for words in lines
        if "prepare" in words
    ]
    assert drawn == [[labels, seed, "42"] for labels in ("20", "40") for seed in ("3", "5")]
    found = re.findall(r"few/(\d+)/(\d)/arms/([a-z-]+)/grpo.new", "\n".join(rollouts(printed)))
    assert {*found} == {*itertools.product(("20", "40"), "35", ("oracle", "default", "paper"))}
    paid = [words for words in lines if words[:2] == ["cellduality", "configure"] and "*=duality" in words]
    assert [told("--hidden", words) for words in paid] == [["*=0.25"]] * 4
    assert [told("--judge", words) for words in lines if "pseudo-label" in words] == [["none"]] * 4


def test_the_default_reward_is_chosen_on_validation_cells_by_an_audit_and_by_training(dry, project):
    printed = dry("benchmark_default", SEEDS="3 5", RUNS_DIR=str(project.parent / "choice"))
    kinds = ["duality", "likelihood", "posterior"]
    arms = re.findall(r"choice/3/arms/([a-z-]+)/grpo.new", "\n".join(rollouts(printed)))
    assert arms == ["oracle", *(f"{kind}{dual}" for kind in kinds for dual in ("", "-frozen"))]
    lines = commands(printed)
    assert all(told("--split", words) == ["validation"] for words in lines if "evaluate" in words)
    audits = [words for words in lines if "audit" in words]
    assert [told("--out", words)[0][-7:] for words in audits] == ["3/audit", "5/audit"]
    assert {told("--rewards", words)[0] for words in audits} == {",".join([*kinds, "oracle"])}
