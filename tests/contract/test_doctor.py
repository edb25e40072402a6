"""The commands of every profile pass the doctor, on the machine they are for and on this one; what they would take.

A plan is with a checkpoint that is its config alone, on cards of every size.
"""

from __future__ import annotations

import json
import math
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cellduality_plugin.agent_file import bound_agent_file
from cellduality_plugin.openrlhf_hooks.doctor.check import Finding
from cellduality_plugin.openrlhf_hooks.doctor.checks import examine
from cellduality_plugin.openrlhf_hooks.doctor.flags import RL, SFT
from cellduality_plugin.openrlhf_hooks.doctor.machine import GIB, TESTED, Machine
from cellduality_plugin.openrlhf_hooks.doctor.plan import CARDS, Rates, Stage, plan
from cellduality_plugin.openrlhf_hooks.doctor.run import Run
from tests.refused import refused

ROOT = Path(__file__).parents[2]
PROFILES = sorted(path.stem for path in (ROOT / "recipes" / "profiles").glob("*.toml"))
ON_CPU = ("cpu", "smollm2")
SMALLER = "meta-llama/Llama-3.2-1B-Instruct"
SMALL, LARGE = "HuggingFaceTB/SmolLM2-135M-Instruct", "meta-llama/Llama-3.2-3B-Instruct"
CPU = Machine((3, 11), TESTED, host_memory=32 * GIB)
AS_RECIPES = {"CELLDUALITY_DEVICE": "gpu"}  # something stands in for flash_attn
MACHINES = {
    "gpu24": Machine((3, 11), TESTED, 1, 24 * GIB, 128 * GIB, False, variables=AS_RECIPES),
    "gpu80": Machine((3, 11), TESTED, 1, 79 * GIB, 256 * GIB, False, variables=AS_RECIPES),
    "gpu1": Machine((3, 11), TESTED, 1, 48 * GIB, 256 * GIB, True),
    "a6000x8": Machine((3, 11), TESTED, 8, 48 * GIB, 512 * GIB, True),
    "multinode": Machine((3, 11), TESTED, 8, 48 * GIB, 512 * GIB, True),
}
P = 3212749824
ROUND = ["SFT (sft)", "rollouts", "duals", "training step", "evaluation"]
PLAIN = Rates(teraflops=100, gigabytes_a_second=1000, compute_share=0.5, memory_share=0.5)


@pytest.fixture
def examined(dry_run, prepared, small_world, tmp_path) -> Callable[..., list[list[Finding]]]:
    """Return a function that prepares what a stage of a profile needs, then examines its command on some machines."""
    models = ("base", "pretrained", "sft")

    def examine_stage(profile: str, trainer: str, *machines: Machine) -> list[list[Finding]]:
        commands = dry_run("grpo_duality", PROFILE=profile, RAY_JOB_ADDRESS="http://127.0.0.1:9")
        *_, words = (words[3:] for words in commands if words[:2] == ["cellduality", "doctor"] and trainer in words)
        printed = next(word for word in words if word.endswith(("_traces.jsonl", "rl.jsonl", "rl_chosen.jsonl")))
        run_dir = str(Path(printed).parents[1])
        prepared(SMALL if profile in ON_CPU else SMALLER if profile == "gpu24" else LARGE, *models)
        shutil.copy(tmp_path / "data" / "cellduality.json", tmp_path / "data" / "chosen.json")
        for name in ("cellduality", "chosen"):
            bound_agent_file(tmp_path / "data" / f"{name}.json")
        for name in models:
            (tmp_path / name / "pytorch_model.bin").touch()
            shutil.copytree(
                small_world.model, tmp_path / name, dirs_exist_ok=True,
                ignore=shutil.ignore_patterns("*.safetensors", "config.json"),
            )  # fmt: skip
        moved = [word.replace(run_dir, str(tmp_path)) for word in words]
        return [list(examine(Run(moved, machine))) for machine in machines]

    return examine_stage


@pytest.mark.parametrize("trainer", [SFT, RL])
@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_has_no_error_and_on_the_machine_it_is_for_no_warning(profile, trainer, examined):
    there, here = examined(profile, trainer, CPU if profile in ON_CPU else MACHINES[profile], Machine.look())
    mine = [finding for finding in there if finding.check != "disk_space"]  # which is this machine's
    assert [finding for finding in mine if finding.severity != "note"] == []
    assert [finding for finding in here if finding.severity == "error"] == []
    assert {finding.check for finding in here} <= {
        "flags_for_a_gpu", "enough_cards", "model_folder", "no_checkpoints", "disk_space", "host_memory",
    }  # fmt: skip


@pytest.fixture
def lines(dry_run, prepared, tmp_path) -> Callable[..., list[str]]:
    """Return a function that gives what a recipe prints of a run whose data are prepared and whose models are not."""
    prepared(LARGE, "base")
    (tmp_path / "data/rl_chosen.jsonl").unlink()

    def printed(profile: str, **variables: str) -> list[str]:
        words = dry_run("grpo_duality", PROFILE=profile, **variables)
        [run_dir] = {Path(each[each.index("--out") + 1]).parent for each in words if each[1:3] == ["model", "fetch"]}
        return [shlex.join(each).replace(str(run_dir), str(tmp_path)).replace("'", "") for each in words]

    return printed


def machine(gib: float) -> Machine:
    return Machine((3, 11), TESTED, gpu_memory=gib * GIB)


@pytest.mark.parametrize("gpus", [1, 2, 4, 8])
@pytest.mark.parametrize("profile", MACHINES)
def test_every_stage_of_every_profile_has_gib_tokens_and_hours_on_every_card(profile, gpus, lines, tmp_path):
    printed, model = lines(profile, GPUS=str(gpus)), str(tmp_path / "base")
    nodes = 2 if profile == "multinode" else 1
    for gib in (24, 48, 80):
        rates, _ = Rates.of(gib * GIB)
        assert [rates.teraflops, rates.gigabytes_a_second] == list(next(c for c in CARDS if c[1] == gib)[2:])
        found = {stage.name: stage for stage in plan(printed, machine(gib), rates, model)}
        assert [*found] == ROUND
        assert [stage.cards for stage in found.values()] == [gpus, *[nodes * gpus] * 3, gpus]
        for stage in found.values():
            assert stage.gib
            assert stage.tokens > 0
            assert stage.seconds > 0
        assert found["evaluation"].gib == pytest.approx(0.9 * gib)
        offloaded = profile in ("gpu24", "gpu1")
        assert found["SFT (sft)"].gib > (2 * P + (2 * P + 12 * P * (not offloaded)) / gpus) / GIB, "weights alone"


def test_more_cards_take_less_of_each_and_less_time(lines, tmp_path):
    plans = [plan(lines("a6000x8", GPUS=gpus), machine(80), PLAIN, str(tmp_path / "base")) for gpus in ("1", "8")]
    for few, many in zip(*plans, strict=True):
        assert few.tokens == pytest.approx(many.tokens)
        assert (few.gib or 0) > (many.gib or 0) or few.name == "evaluation"
        assert few.seconds > many.seconds
        assert few.seconds / many.seconds == pytest.approx(8) or few.name not in ("SFT (sft)", "training step")
    sft = plans[0][0]  # with gradient checkpointing
    assert sft.seconds == pytest.approx(sft.tokens * 8 * P / (100e12 * 0.5))


def test_decoding_is_bound_by_memory_what_is_assumed_counts_and_without_room_there_is_no_end(lines, tmp_path):
    def rollouts(**assumed: float) -> Stage:
        return plan(lines("gpu80"), machine(80), PLAIN.model_copy(update=assumed), str(tmp_path / "base"))[1]

    short, long = rollouts(response_tokens=100.0), rollouts(response_tokens=200.0)
    assert long.tokens - short.tokens == pytest.approx(512 * 8 * 100)
    weights = 512 * 8 * 100 / 128 * 2 * P / 500e9  # are read for a token of 16 x 8 sequences each; then their cache
    assert weights < long.seconds - short.seconds < 2 * weights
    assert rollouts(memory_share=1.0).seconds < rollouts().seconds
    sft, rolled, *_ = plan(lines("a6000x8"), machine(12), PLAIN, str(tmp_path / "base"))
    assert sft.seconds < rolled.seconds == math.inf


def test_duals_that_nobody_here_answers_are_no_stage(lines, tmp_path):
    path = tmp_path / "data/cellduality.json"
    values = json.loads(path.read_text())
    values["dual"] = {"player": "frozen", "endpoint": {"urls": ["http://127.0.0.1:9/v1"], "model": "judge"}}
    path.write_text(json.dumps(values))
    assert [each.name for each in plan(lines("gpu1"), machine(48), PLAIN)] == [n for n in ROUND if n != "duals"]


def test_what_cannot_be_planned_is_one_line(lines, tmp_path):
    printed, model = lines("gpu1"), str(tmp_path / "base")
    trainings = [line for line in printed if SFT in line]
    for code, commands, name in (
        ("no-trainer", ["bash recipes/setup.sh"], ""),
        ("unreadable-command", ["echo 'half"], ""),
        ("no-cards", [f"cellduality-cpu {line}" for line in trainings], ""),
        ("no-model", printed, "nobody/nothing"),
        ("wrong-flags", [f"{line} --data.max_len long" for line in trainings], model),
    ):
        with refused(code):
            plan(commands, machine(48), PLAIN, name)
    for wrong in ("teraflops=fast", "teraflops", "teraflops=0", "warp=9", "compute_share=2"):
        with refused("wrong-settings"):
            Rates.of(48 * GIB, [wrong])
    (tmp_path / "data/rl.jsonl").unlink()
    with refused("no-rows"):
        plan(printed, machine(48), PLAIN, model)
