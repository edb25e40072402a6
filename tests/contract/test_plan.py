"""What the recipes of every profile would take, on cards of every size, with a checkpoint that is its config alone."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from cellduality_plugin.openrlhf_hooks.doctor.flags import SFT
from cellduality_plugin.openrlhf_hooks.doctor.machine import GIB, TESTED, Machine
from cellduality_plugin.openrlhf_hooks.doctor.plan import CARDS, Rates, Stage, plan
from tests.refused import refused

MODEL, P = "meta-llama/Llama-3.2-3B-Instruct", 3212749824
PROFILES = ["gpu24", "gpu1", "gpu80", "a6000x8", "multinode"]
ROUND = ["SFT (sft)", "rollouts", "duals", "training step", "evaluation"]
PLAIN = Rates(teraflops=100, gigabytes_a_second=1000, compute_share=0.5, memory_share=0.5)


@pytest.fixture
def lines(dry_run, prepared, tmp_path) -> Callable[..., list[str]]:
    """Return a function that gives what a recipe prints of a run whose data are prepared and whose models are not."""
    prepared(MODEL, "base")
    (tmp_path / "data/rl_chosen.jsonl").unlink()

    def printed(profile: str, **variables: str) -> list[str]:
        words = dry_run("grpo_duality", PROFILE=profile, **variables)
        [run_dir] = {Path(each[each.index("--out") + 1]).parent for each in words if each[1:3] == ["model", "fetch"]}
        return [shlex.join(each).replace(str(run_dir), str(tmp_path)).replace("'", "") for each in words]

    return printed


def machine(gib: float) -> Machine:
    return Machine((3, 11), TESTED, gpu_memory=gib * GIB)


@pytest.mark.parametrize("gpus", [1, 2, 4, 8])
@pytest.mark.parametrize("profile", PROFILES)
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
