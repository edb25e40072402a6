"""The commands of every profile pass the doctor: on the machine they are for, and on this one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cellduality_plugin.agent_file import bound_agent_file
from cellduality_plugin.openrlhf_hooks.doctor.check import Finding
from cellduality_plugin.openrlhf_hooks.doctor.checks import examine
from cellduality_plugin.openrlhf_hooks.doctor.flags import RL, SFT
from cellduality_plugin.openrlhf_hooks.doctor.machine import GIB, TESTED, Machine
from cellduality_plugin.openrlhf_hooks.doctor.run import Run

ROOT = Path(__file__).parents[2]
PROFILES = sorted(path.stem for path in (ROOT / "recipes" / "profiles").glob("*.toml"))
ON_CPU = ("cpu", "smollm2")
SMALLER = "meta-llama/Llama-3.2-1B-Instruct"
SMALL, LARGE = "HuggingFaceTB/SmolLM2-135M-Instruct", "meta-llama/Llama-3.2-3B-Instruct"
CPU = Machine((3, 11), TESTED, host_memory=32 * GIB)
AS_RECIPES = {"CELLDUALITY_DEVICE": "gpu"}  # something stands in for flash_attn
CARDS = {
    "gpu24": Machine((3, 11), TESTED, 1, 24 * GIB, 128 * GIB, False, variables=AS_RECIPES),
    "gpu80": Machine((3, 11), TESTED, 1, 79 * GIB, 256 * GIB, False, variables=AS_RECIPES),
    "gpu1": Machine((3, 11), TESTED, 1, 48 * GIB, 256 * GIB, True),
    "a6000x8": Machine((3, 11), TESTED, 8, 48 * GIB, 512 * GIB, True),
    "multinode": Machine((3, 11), TESTED, 8, 48 * GIB, 512 * GIB, True),
}


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
    there, here = examined(profile, trainer, CPU if profile in ON_CPU else CARDS[profile], Machine.look())
    mine = [finding for finding in there if finding.check != "disk_space"]  # which is this machine's
    assert [finding for finding in mine if finding.severity != "note"] == []
    assert [finding for finding in here if finding.severity == "error"] == []
    assert {finding.check for finding in here} <= {
        "flags_for_a_gpu", "enough_cards", "model_folder", "no_checkpoints", "disk_space", "host_memory",
    }  # fmt: skip
