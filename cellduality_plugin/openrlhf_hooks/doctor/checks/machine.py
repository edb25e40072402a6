"""Versions, and whether cards and host have room for what the run takes, by the formulas of the estimate."""

from __future__ import annotations

from cellduality_plugin.openrlhf_hooks.cpu.post_import import DEVICE_VARIABLE
from cellduality_plugin.openrlhf_hooks.doctor.check import Found, check, error, note, warning
from cellduality_plugin.openrlhf_hooks.doctor.command import RL
from cellduality_plugin.openrlhf_hooks.doctor.machine import GIB, PYTHONS, TESTED
from cellduality_plugin.openrlhf_hooks.doctor.memory import HOST, cache_tokens, parts, totals
from cellduality_plugin.openrlhf_hooks.doctor.model import Model
from cellduality_plugin.openrlhf_hooks.doctor.run import Run

_SURELY = 1.25  # times what there is: the estimate is rough


@check()
def versions(run: Run) -> Found:
    """Another version than the contract tests ran on. What this package leans on beyond OpenRLHF's documentation is
    tested on these versions."""
    if not PYTHONS[0] <= run.machine.python <= PYTHONS[1]:
        yield warning("Python {}.{}".format(*run.machine.python), "python", "use 3.10, 3.11 or 3.12")
    for name, tested in TESTED.items():
        found, hint = run.machine.versions.get(name), f"install {name}=={tested}"
        if found is None and (run.is_rl or name not in ("vllm", "ray")):
            yield warning(f"{name} is not installed here", name, f"{hint} where the run is")
        elif found not in (None, tested):
            yield warning(f"{name} {found}; tested was {tested}", name, f"{hint}, or run tests/contract")


@check()
def flash_attention(run: Run) -> Found:
    """Flash attention that is not installed. Packed rows need it, and OpenRLHF imports `flash_attn` whatever attention
    is chosen: `cellduality-cpu` and, on GPUs, the recipes have something stand in for the import."""
    if not run.machine.gpus or run.is_elsewhere or run.machine.has_flash_attention:
        return
    build = "FLASH_ATTN=build bash recipes/setup.sh compiles it, about four core hours a kind of card"
    if run.get("ds.packing_samples"):
        hint = f"pass --ds.attn_implementation sdpa, and neither this nor dynamic batches; {build}"
        yield error("packed rows need flash_attn, which is not installed", "--ds.packing_samples", hint)
    elif run.variables.get(DEVICE_VARIABLE) != "gpu":
        hint = f"start it by a recipe, which has something stand in for it; {build}"
        yield error("OpenRLHF imports flash_attn, which is not installed", "flash_attn", hint)
    else:
        yield note("without flash_attn rows are padded to the longest of their batch", "flash_attn", build)


@check()
def optimisers(run: Run) -> Found:
    """DeepSpeed without compiled optimisers, and no nvcc. It compiles them when the model has been loaded."""
    if run.machine.gpus and not run.is_elsewhere and not run.machine.has_optimisers:
        what = "DeepSpeed's optimisers are not compiled, and there is no nvcc"
        hint = "bash recipes/setup.sh compiles them"
        yield error(what, "deepspeed", hint)


@check()
def card_memory(run: Run, model: Model) -> Found:
    """More memory than a card has, by the estimate; an error from a quarter more. The first update, or the first long
    answer, ends in "out of memory"."""
    found, card = parts(run), run.machine.gpu_memory
    if not found and not model.is_missing:
        yield note("the memory a run takes could not be estimated", run.model_place)
    for place, total in totals(found).items():
        when, most = max(("training", total.training), ("generating", total.generating), key=lambda pair: pair[1])
        if place != HOST and card is not None and most > card:
            what = f"a {place} takes about {most / GIB:.0f} GiB while {when}, and has {card / GIB:.0f}"
            hint = "smaller micro-batches, --ds.adam_offload, --ds.enable_sleep and --vllm.enable_sleep take less"
            yield (error if most > _SURELY * card else warning)(what, "--gpu-memory", hint)


@check()
def host_memory(run: Run) -> Found:
    """More memory than the host has, by the estimate. The kernel ends some process of the run; Ray reports a worker
    that died."""
    host, total = run.machine.host_memory, totals(parts(run)).get(HOST)
    most = max(total.loading, total.generating, total.training) if total else 0
    if most > 0.9 * host and not run.is_elsewhere:
        what = f"the host takes about {most / GIB:.0f} GiB, and has {host / GIB:.0f}"
        yield warning(what, "--host-memory", "use fewer processes a node, or leave out offloading")


@check(RL)
def engine_cache(run: Run) -> Found:
    """An engine whose cache does not hold one whole sequence, or not a whole group. With less than one, vLLM refuses to
    start; with less than a group, samples wait for each other."""
    tokens, context, flag = cache_tokens(run), run.get("data.max_len"), "--vllm.gpu_memory_utilization"
    hint = f"raise {flag}, or lower --data.max_len"
    if tokens is not None and tokens < context:
        yield error(f"the engine can remember {max(0, tokens)} tokens, and one sequence has {context}", flag, hint)
    elif tokens is not None and tokens < context * run.get("rollout.n_samples_per_prompt"):
        yield warning(f"the engine can remember {tokens} tokens, less than a group needs", flag, hint)
