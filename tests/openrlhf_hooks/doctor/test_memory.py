"""The estimate of memory is its formulas, and follows the flags that save some."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from cellduality_plugin.openrlhf_hooks.doctor.command import RL, SFT
from cellduality_plugin.openrlhf_hooks.doctor.machine import GIB
from cellduality_plugin.openrlhf_hooks.doctor.memory import HOST, Part, cache_tokens, parts, totals
from cellduality_plugin.openrlhf_hooks.doctor.model import _known

ON_GPU = ("python", "-m")
P, LAYERS, HIDDEN, WORDS = 3212749824, 28, 3072, 128256
CARDS = {"gpus": 8, "gpu_memory": 48 * GIB, "has_flash_attention": True}
EIGHT = {
    "actor.num_gpus_per_node": 8, "ref.num_gpus_per_node": 8, "vllm.num_engines": 8, "data.max_len": 4096,
    "vllm.gpu_memory_utilization": 0.5, "ds.zero_stage": 3,
}  # fmt: skip


@pytest.fixture
def of(world) -> Callable[..., dict[tuple[str, str], Part]]:
    """Return a function that gives the parts of a run of Llama 3B on eight cards, by name and place."""
    folder = world.folder / "3b"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(_known("meta-llama/Llama-3.2-3B-Instruct")))

    def estimate(changes: dict[str, object], trainer: str = RL, launch: tuple[str, ...] = ON_GPU, **machine: object):
        model = "actor.model_name_or_path" if trainer == RL else "model.model_name_or_path"
        run = world.run(
            trainer, {**(EIGHT if trainer == RL else {}), model: folder, **changes}, launch, **{**CARDS, **machine}
        )
        return {(part.name, part.where): part for part in parts(run)}

    return estimate


def test_zero_3_shares_everything_and_lower_stages_less(of):
    found = {stage: of({"ds.zero_stage": stage}) for stage in (0, 1, 2, 3)}
    shares = {"weights": (1, 1, 1, 8), "gradients": (1, 1, 8, 8), "optimiser": (1, 8, 8, 8), "reference": (1, 1, 1, 8)}
    sizes = {"weights": 2, "gradients": 2, "optimiser": 12, "reference": 2}
    for name, by_stage in shares.items():
        assert [found[stage][name, "card"].training for stage in (0, 1, 2, 3)] == [
            sizes[name] * P / share for share in by_stage
        ]


def test_activations_and_logits_follow_the_tokens(of):
    plain, saved = of({}), of({"actor.gradient_checkpointing_enable": True})
    tokens = 2 * 4096
    assert plain["activations", "card"].training == 34 * tokens * HIDDEN * LAYERS
    assert saved["activations", "card"].training == 2 * tokens * HIDDEN * LAYERS + 34 * tokens * HIDDEN
    assert plain["logits", "card"].training == 10 * tokens * WORDS
    packed = {"train.dynamic_batch_enable": True, "ds.packing_samples": True, "train.max_tokens_per_gpu": 16384}
    assert of(packed)["logits", "card"].training == 10 * 16384 * WORDS
    sft = of({"train.micro_batch_size": 1, "data.max_len": 100}, SFT)
    assert sft["logits", "card"].training == 10 * 100 * WORDS
    assert not {"reference", "engine"} & {name for name, _ in sft}


def test_what_sleeps_or_is_offloaded_goes_to_the_host(of):
    awake, asleep = of({}), of({"vllm.enable_sleep": True, "ds.enable_sleep": True})
    assert awake["engine", "card"] == Part("engine", "card", 24 * GIB, 24 * GIB, "0.5 of the card")
    assert awake["optimiser", "card"].generating == 12 * P / 8
    assert asleep["engine", "card"].training == 0
    assert asleep["optimiser", "card"].generating == 0
    assert asleep["engines asleep", HOST].training == 2 * P * 8
    assert asleep["trainer asleep", HOST].generating == 14 * P
    offloaded = of({"ds.adam_offload": True, "ref.offload": True})
    assert ("optimiser", "card") not in offloaded
    assert ("reference", "card") not in offloaded
    assert offloaded["optimiser", HOST].training == 16 * P
    assert offloaded["reference", HOST].training == 2 * P * 8
    assert awake["loading", HOST].loading == 2 * P * 8 * 2


def test_cards_that_are_not_shared_are_reckoned_apart(of):
    apart = of({"train.colocate_all": None})
    assert {where for _, where in apart} == {"actor card", "reference card", "engine card", HOST}
    half = of({"train.colocate_all": None, "train.colocate_actor_ref": True})
    assert {where for _, where in half} == {"trainer's card", "engine card", HOST}
    found = tuple(half.values())
    assert totals(found)["engine card"] == (24 * GIB, 24 * GIB, 0)


def test_without_a_card_everything_is_on_the_host(of):
    on_cpu = of(
        {"ds.zero_stage": 0, **{name: 1 for name in EIGHT if "num" in name}},
        launch=("cellduality-cpu", *ON_GPU),
        gpus=0,
    )
    assert {where for _, where in on_cpu} == {HOST}
    assert on_cpu["engine", HOST].generating == 2 * P + GIB
    two = of({}, SFT, ("cellduality-cpu", "torchrun", "--nproc-per-node", "2", "-m"), gpus=0)
    assert two["weights", HOST].training == 2 * 2 * P


def test_the_engines_cache_is_what_weights_leave(world, of):
    of({})
    changes = {**EIGHT, "actor.model_name_or_path": "{}/3b"}
    run = world.run(RL, changes, ON_GPU, **CARDS)
    assert cache_tokens(run) == (24 * GIB - 2 * P - GIB) // (112 * 1024)
    assert cache_tokens(world.run(RL, changes, ON_GPU, **{**CARDS, "gpu_memory": None})) is None
    assert cache_tokens(world.run(SFT, {}, ON_GPU, **CARDS)) is None


def test_a_model_of_unknown_size_is_not_guessed(world):
    run = world.run(RL, {"actor.model_name_or_path": "nobody/nothing"}, ON_GPU, **CARDS)
    assert (parts(run), totals(())) == ((), {})
