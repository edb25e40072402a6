"""The estimate of memory is its formulas, and follows the flags that save some."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from cellduality_plugin.openrlhf_hooks.doctor.flags import RL, SFT
from cellduality_plugin.openrlhf_hooks.doctor.machine import GIB, KNOWN
from cellduality_plugin.openrlhf_hooks.doctor.memory import HOST, Part, cache_tokens, parts, totals
from cellduality_plugin.openrlhf_hooks.doctor.run import Run

P, LAYERS, HIDDEN, WORDS = 3212749824, 28, 3072, 128256
CARDS = {"launch": "python -m", "gpus": 8, "gpu_memory": 48 * GIB, "has_flash_attention": True}
EIGHT = (
    "--actor.model_name_or_path {}/3b --actor.num_gpus_per_node 8 --ref.num_gpus_per_node 8 --vllm.num_engines 8 "
    "--data.max_len 4096 --vllm.gpu_memory_utilization 0.5 --ds.zero_stage 3 "
)


@pytest.fixture
def run(world) -> Callable[..., Run]:
    """Return a function that gives a run of Llama 3B on eight cards."""
    (world.folder / "3b").mkdir()
    (world.folder / "3b" / "config.json").write_text(json.dumps(KNOWN["meta-llama/Llama-3.2-3B-Instruct"]))
    before = {RL: EIGHT, SFT: "--model.model_name_or_path {}/3b "}
    return lambda words="", trainer=RL, **machine: world.run(trainer, before[trainer] + words, **{**CARDS, **machine})


@pytest.fixture
def of(run) -> Callable[..., dict[tuple[str, str], Part]]:
    """Return a function that gives the parts of such a run, by name and place."""
    return lambda *words, **machine: {(part.name, part.where): part for part in parts(run(*words, **machine))}


def test_zero_3_shares_everything_and_lower_stages_less(of):
    found = [of(f"--ds.zero_stage {stage}") for stage in (0, 1, 2, 3)]
    for name, size, shares in (
        ("weights", 2, (1, 1, 1, 8)), ("gradients", 2, (1, 1, 8, 8)),
        ("optimiser", 12, (1, 8, 8, 8)), ("reference", 2, (1, 1, 1, 8)),
    ):  # fmt: skip
        assert [stage[name, "card"].training for stage in found] == [size * P / share for share in shares]


def test_activations_and_logits_follow_the_tokens(of):
    plain, saved = of(), of("--actor.gradient_checkpointing_enable")
    packed = of("--train.dynamic_batch_enable --ds.packing_samples --train.max_tokens_per_gpu 16384")
    assert plain["logits", "card"].training == 10 * 2 * 4096 * WORDS == packed["logits", "card"].training / 2
    assert plain["activations", "card"].training == 34 * 2 * 4096 * HIDDEN * LAYERS
    assert saved["activations", "card"].training < plain["activations", "card"].training / 5


def test_what_sleeps_or_is_offloaded_goes_to_the_host(of):
    awake, asleep = of(), of("--vllm.enable_sleep --ds.enable_sleep")
    offloaded = of("--ds.adam_offload --ref.offload")
    assert awake["engine", "card"] == Part("engine", "card", 24 * GIB, 24 * GIB, "0.5 of the card")
    assert awake["optimiser", "card"].generating == 12 * P / 8
    assert awake["loading", HOST].loading == 2 * P * 8 * 2
    assert asleep["engine", "card"].training == asleep["optimiser", "card"].generating == 0
    assert asleep["engines asleep", HOST].training == 2 * P * 8
    assert asleep["trainer asleep", HOST].generating == 14 * P
    assert not {("optimiser", "card"), ("reference", "card")} & offloaded.keys()
    assert offloaded["optimiser", HOST].training == 16 * P
    assert offloaded["reference", HOST].training == 2 * P * 8


def test_cards_that_are_not_shared_are_reckoned_apart(of):
    apart, half = of("~train.colocate_all"), of("~train.colocate_all --train.colocate_actor_ref")
    assert {where for _, where in apart} == {"actor card", "reference card", "engine card", HOST}
    assert {where for _, where in half} == {"trainer's card", "engine card", HOST}
    total = totals(tuple(half.values()))["engine card"]
    assert (total.generating, total.training, total.loading) == (24 * GIB, 24 * GIB, 0)


def test_without_a_card_everything_is_on_the_host(of):
    one = "--ds.zero_stage 0 --actor.num_gpus_per_node 1 --ref.num_gpus_per_node 1 --vllm.num_engines 1"
    on_cpu = of(one, launch="cellduality-cpu python -m", gpus=0)
    assert {where for _, where in on_cpu} == {HOST}
    assert on_cpu["engine", HOST].generating == 2 * P + GIB
    two = of("", SFT, launch="cellduality-cpu torchrun --nproc-per-node 2 -m", gpus=0)
    assert two["weights", HOST].training == 2 * 2 * P


def test_the_engines_cache_is_what_weights_leave(run):
    assert cache_tokens(run()) == (24 * GIB - 2 * P - GIB) // (112 * 1024)
    assert cache_tokens(run(gpu_memory=None)) is None
    assert cache_tokens(run("", SFT)) is None
