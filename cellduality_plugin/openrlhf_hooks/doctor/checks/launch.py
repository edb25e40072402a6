"""What a run meets as it starts: OpenRLHF's parser, cards, versions, memory, folders."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from cellduality_plugin.openrlhf_hooks.cpu.launch import refuse_gpu_only, slots
from cellduality_plugin.openrlhf_hooks.cpu.post_import import DEVICE_VARIABLE
from cellduality_plugin.openrlhf_hooks.doctor.check import Found, check, error, note, warning
from cellduality_plugin.openrlhf_hooks.doctor.checks.table import saves
from cellduality_plugin.openrlhf_hooks.doctor.flags import RL
from cellduality_plugin.openrlhf_hooks.doctor.machine import GIB, PYTHONS, TESTED, Model
from cellduality_plugin.openrlhf_hooks.doctor.memory import HOST, cache_tokens, parts, totals
from cellduality_plugin.openrlhf_hooks.doctor.run import Run

_FOLDERS = ("ckpt.output_dir", "ckpt.path", "logger.tensorboard_dir")
_SURELY = 1.25  # times what a card has: the estimate is rough


@check(always=True)
def unknown_flags(run: Run) -> Found:
    for flag, nearest in run.flags.unknown.items():
        hint = f"did you mean {nearest}?" if nearest else "see --help of the trainer"
        yield error(f"OpenRLHF has no flag {flag}", flag, hint)


@check(always=True)
def refused_flags(run: Run) -> Found:
    for refusal in run.flags.refusals:
        yield error(f"OpenRLHF refuses: {refusal}", run.trainer, "change the flags it names")


@check(always=True)
def corrected_flags(run: Run) -> Found:
    for line in run.flags.corrections:
        what = f"OpenRLHF says: {line.removeprefix('[Warning]').strip()}"
        yield warning(what, run.trainer, "pass the value that it will use")


@check()
def flags_for_a_gpu(run: Run) -> Found:
    if run.on_cpu:
        refuse_gpu_only(run.trainer, run.flags)
    elif run.machine.unusable and not run.is_elsewhere:
        what = f"torch sees none of the cards of driver {run.machine.unusable}"
        yield error(what, "torch", "CUDA 13 needs driver 580 or newer: update it, or ask for cards (nvidia-smi)")
    elif not run.machine.gpus and not run.is_elsewhere:
        hint = "run it where the GPUs are, or put cellduality-cpu in front"
        yield warning("no GPU was found on this machine", run.words[0], hint)


@check()
def readable_environment(run: Run) -> Found:
    if run.job_variables == "--runtime-env-json":
        yield error("not a JSON object", "--runtime-env-json", "quote it: '{\"env_vars\": {}}'")
    elif run.job_variables == "--runtime-env":
        yield note("a file was not read", "--runtime-env", "pass --runtime-env-json")


@check()
def checkpoints_there(run: Run) -> Found:
    folder = Path(run.get("ckpt.path"), "_actor" if run.is_rl else "")
    loads, there = run.get("ckpt.load_enable"), folder.is_dir() and any(folder.iterdir())
    if there and not loads:
        hint = "add --ckpt.load_enable, or use another folder"
        yield warning(f"checkpoints of an earlier run are in {folder}", "--ckpt.path", hint)
    elif loads and not there:
        yield warning(f"no checkpoint to load in {folder}", "--ckpt.load_enable", "check --ckpt.path")


@check(RL)
def resumed_model(run: Run, model: Model) -> Found:
    named, written = Path(model.name).resolve(), (Path(run.get(name)).resolve() for name in _FOLDERS[:2])
    if run.get("ckpt.load_enable") and any(folder in (named, *named.parents) for folder in written):
        yield error("the reference policy would be one that this run writes", run.model_place, "pass the SFT model")


@check()
def folders_can_be_written(run: Run) -> Found:
    for name in _FOLDERS:
        path = run.get(name)
        above = _nearest(Path(path or "."))
        if path and not run.submitted and not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
            yield error(f"{above} is no folder that can be written to", f"--{name} {path}", "choose another folder")


@check(RL)
def relative_paths(run: Run) -> Found:
    given = {"ckpt.output_dir": run.get("ckpt.output_dir"), **run.flags.given}
    names = (*_FOLDERS, "train.agent_func_path", run.rows_flag[2:], "reward.remote_url")
    for name, value in ((name, str(given.get(name) or "")) for name in names):
        is_path = value and "://" not in value and (name != run.rows_flag[2:] or value.endswith(".jsonl"))
        if run.is_elsewhere and is_path and not os.path.isabs(value):
            yield warning(f"the path {value} is relative", f"--{name}", "pass an absolute path that every node sees")


@check()
def disk_space(run: Run, model: Model) -> Found:
    if run.submitted or model.parameters is None:
        return
    kept = run.get("ckpt.max_num") if saves(run) else 0
    needed, free = model.parameters * (2 + 14 * kept), shutil.disk_usage(_nearest(Path(run.get("ckpt.path")))).free
    if free < needed:
        what = f"{free / GIB:.1f} GiB are free, and {kept} checkpoints and the model take about {needed / GIB:.1f}"
        yield warning(what, "--ckpt.path", "free some space, or lower --ckpt.max_num")


def _nearest(path: Path) -> Path:
    """Return the path, or the nearest folder above it that is there."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


@check(RL)
def prompts_fill_rollouts(run: Run, row_count: int, shares: int) -> Found:
    prompts, group, batch = map(run.get, ("rollout.batch_size", "rollout.n_samples_per_prompt", "train.batch_size"))
    if prompts < 1 or not row_count % prompts or run.get("algo.dynamic_filtering_enable"):
        return
    left, each = row_count % prompts, run.get("rollout.micro_batch_size") * shares
    what = f"{row_count} rows leave a last rollout of {left} prompts"
    hint = f"prepare a multiple of {prompts} rows (N_RL), or pass --data.max_samples"
    if shares > 1 and not run.get("train.dynamic_batch_enable") and (each < 1 or left * group % each):
        yield error(f"{what}, uneven across {shares} ranks", run.rows_flag, hint)
    elif batch > 0 and left * group % batch:
        yield warning(f"{what}, less than a training batch", run.rows_flag, hint)


@check()
def enough_cards(run: Run) -> Found:
    needed = run.flags.cards if run.is_rl else run.devices or 0
    where, hint = "--actor.num_gpus_per_node", "lower it and the engines (GPUS, ENGINES), or colocate"
    if run.address and run.cluster is None:
        yield note(f"the cluster at {run.address} cannot be seen: whether it has room was not checked", where)
    elif run.cluster:
        total, free = (
            min(some.get(name, 0) for name in ("GPU", "CPU")) for some in (run.cluster.total, run.cluster.free)
        )
        if needed > free:
            what = f"the run asks Ray for {needed} cards, a CPU each, and there is {run.cluster}"
            yield (error if needed > total else warning)(what, where, hint)
    elif run.on_cpu and run.is_rl:
        slots(run.flags, run.variables)
    elif not run.is_elsewhere and needed > run.machine.gpus > 0:
        yield error(f"the run asks for {needed} cards, and there are {run.machine.gpus}", where, hint)


@check()
def versions(run: Run) -> Found:
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
    if run.machine.gpus and not run.is_elsewhere and not run.machine.has_optimisers:
        what = "DeepSpeed's optimisers are not compiled, and there is no nvcc"
        yield error(what, "deepspeed", "bash recipes/setup.sh compiles them")


@check()
def card_memory(run: Run, model: Model) -> Found:
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
    host, total = run.machine.host_memory, totals(parts(run)).get(HOST)
    most = max(total.loading, total.generating, total.training) if total else 0
    if most > 0.9 * host and not run.is_elsewhere:
        what = f"the host takes about {most / GIB:.0f} GiB, and has {host / GIB:.0f}"
        yield warning(what, "--host-memory", "use fewer processes a node, or leave out offloading")


@check(RL)
def engine_cache(run: Run) -> Found:
    tokens, context, flag = cache_tokens(run), run.get("data.max_len"), "--vllm.gpu_memory_utilization"
    hint = f"raise {flag}, or lower --data.max_len"
    if tokens is not None and tokens < context:
        yield error(f"the engine can remember {max(0, tokens)} tokens, and one sequence has {context}", flag, hint)
    elif tokens is not None and tokens < context * run.get("rollout.n_samples_per_prompt"):
        yield warning(f"the engine can remember {tokens} tokens, less than a group needs", flag, hint)
