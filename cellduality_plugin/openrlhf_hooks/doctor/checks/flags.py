"""Flags that OpenRLHF does not have, refuses or changes, and those that break a run or the meaning of its reward."""

from __future__ import annotations

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.openrlhf_hooks.cpu.launch import refuse_gpu_only
from cellduality_plugin.openrlhf_hooks.doctor.check import Found, check, error, finding_of, note, warning
from cellduality_plugin.openrlhf_hooks.doctor.command import RL, SFT
from cellduality_plugin.openrlhf_hooks.doctor.run import Run


@check(always=True)
def unknown_flags(run: Run) -> Found:
    """A flag that this OpenRLHF does not have. Flags got their dotted names in 2026; guides and example scripts still
    show older ones."""
    for flag, nearest in run.flags.unknown.items():
        hint = f"did you mean {nearest}?" if nearest else "see --help of the trainer"
        yield error(f"OpenRLHF has no flag {flag}", flag, hint)


@check(always=True)
def refused_flags(run: Run) -> Found:
    """A combination that OpenRLHF itself refuses. Its own assertions are run, so that they are met before a cluster is
    asked for."""
    for refusal in run.flags.refusals:
        yield error(f"OpenRLHF refuses: {refusal}", run.command.trainer, "change the flags it names")


@check(always=True)
def corrected_flags(run: Run) -> Found:
    """A flag that OpenRLHF changes or advises against. It prints so among thousands of lines of a log, and goes on with
    another value."""
    for line in run.flags.corrections:
        what = f"OpenRLHF says: {line.removeprefix('[Warning]').strip()}"
        yield warning(what, run.command.trainer, "pass the value that it will use")


@check()
def flags_for_a_gpu(run: Run) -> Found:
    """A flag that computes on GPUs only, behind `cellduality-cpu`; no GPU and no `cellduality-cpu`; or cards that torch
    cannot see."""
    if run.on_cpu:
        try:
            refuse_gpu_only(run.command.words)
        except CellDualityError as refusal:
            yield finding_of(refusal)
    elif run.machine.unusable and not run.is_elsewhere:
        what = f"torch sees none of the cards of driver {run.machine.unusable}"
        yield error(what, "torch", "CUDA 13 needs driver 580 or newer: update it, or ask for cards (nvidia-smi)")
    elif not run.machine.gpus and not run.is_elsewhere:
        hint = "run it where the GPUs are, or put cellduality-cpu in front"
        yield warning("no GPU was found on this machine", run.command.words[0], hint)


@check()
def readable_environment(run: Run) -> Found:
    """A runtime environment of the job that cannot be read here."""
    flag = run.command.unreadable
    if flag == "--runtime-env-json":
        yield error("the runtime environment is not a JSON object", flag, "quote it: '{\"env_vars\": {}}'")
    elif flag:
        yield note("a runtime environment in a file was not read", flag, "pass --runtime-env-json")


@check(RL)
def zero_and_dynamic_batch(run: Run) -> Found:
    """ZeRO 1 or 2 with dynamic batches. Each micro-batch is a whole step to DeepSpeed, and stages 1 and 2 keep the
    gradient of the last one only."""
    stage, hint = run.get("ds.zero_stage"), "pass --ds.zero_stage 3, or leave out --train.dynamic_batch_enable"
    if run.get("train.dynamic_batch_enable") and stage in (1, 2):
        what = f"with ZeRO {stage} dynamic batches train on the last micro-batch alone"
        yield error(what, "--ds.zero_stage", hint)


@check(RL)
def adapters(run: Run) -> Found:
    """LoRA or 4-bit weights in reinforcement learning. Weights go to vLLM under the names they have in the wrapped
    model, which vLLM does not know."""
    for name in ("ds.lora.rank", "ds.load_in_4bit"):
        if run.get(name):
            hint = "use LoRA in SFT, merge (openrlhf.cli.lora_combiner), then go on"
            yield error(f"--{name} cannot be sent to vLLM", f"--{name}", hint)


@check(SFT)
def unmerged_adapters(run: Run) -> Found:
    """LoRA in SFT. Only the adapter is saved; reinforcement learning needs whole weights."""
    if run.get("ds.lora.rank"):
        hint = "merge it before stage 2: openrlhf.cli.lora_combiner"
        yield note("SFT saves the adapter alone", "--ds.lora.rank", hint)


@check(RL)
def partial_rollout(run: Run) -> Found:
    """Partial rollouts. Weights change inside a sequence, and between an answer and its dual: the reward is of no
    policy there ever was."""
    if run.get("train.partial_rollout_enable"):
        what = "partial rollouts mix weights between an answer and its dual"
        yield error(what, "--train.partial_rollout_enable", "leave it out")


@check(RL)
def async_with_colocate(run: Run) -> Found:
    """Asynchronous training together with shared cards. Then only the trainer's models share cards, and the engines
    wait for cards of their own."""
    if run.get("train.async_enable") and run.get("train.colocate_all"):
        engines = (run.get("vllm.num_engines") or 0) * run.get("vllm.tensor_parallel_size")
        what = f"asynchronous training needs {engines} cards for the engines beside the trainer's {run.devices}"
        yield warning(what, "--train.async_enable", "leave it out, or have as many cards")


@check(RL)
def estimator(run: Run) -> Found:
    """An advantage estimator that trains a critic, or one answer a prompt. The default is `gae`: it loads a second
    model and ignores the group. One answer a prompt has no group to compare with."""
    name, size = run.get("algo.advantage.estimator"), run.get("rollout.n_samples_per_prompt")
    refused_by_openrlhf = ("rloo", "reinforce_baseline", "group_norm", "dr_grpo")
    if name == "gae":
        what = "the advantage estimator gae loads a critic as large as the policy"
        yield warning(what, "--algo.advantage.estimator", "pass group_norm (the paper's) or dr_grpo")
    elif size < 2 and name not in refused_by_openrlhf:
        yield warning(f"{size} answer a prompt has no group to learn from", "--rollout.n_samples_per_prompt", "pass 8")


@check(RL)
def dynamic_filtering(run: Run) -> Found:
    """Dynamic filtering of a graded reward. It drops groups whose mean is not strictly inside the range. Groups whose
    rewards are all alike, which teach nothing, have a mean inside it."""
    if run.get("algo.dynamic_filtering_enable") and run.is_ours:
        low, high = run.get("algo.dynamic_filtering_range")
        what = f"filtering by a mean in ({low:g}, {high:g}) keeps groups of equal graded rewards"
        hint = "leave it out: equal rewards have no advantage; minimum_spread in the configuration levels near ones"
        yield warning(what, "--algo.dynamic_filtering_enable", hint)


@check(RL)
def clipping(run: Run) -> Found:
    """Clip ranges with which the loss fails or is constant. A dual clip of 1 or less is refused by the actor after the
    model was loaded; with a range of 0 or less the clipped ratio does not depend on the policy."""
    dual = run.get("actor.dual_clip")
    if dual is not None and dual <= 1:
        yield error(f"a dual clip of {dual:g} is refused by the actor", "--actor.dual_clip", "pass more than 1, e.g. 3")
    low, high = run.get("actor.eps_clip_low_high") or (run.get("actor.eps_clip"),) * 2
    if low <= 0 or high <= 0:
        yield error(f"the ratio is clipped to [{1 - low:g}, {1 + high:g}]", "--actor.eps_clip", "pass 0.2")


@check(RL)
def correction(run: Run) -> Found:
    """An importance-sampling correction that the loss refuses. `clip` needs the token's ratio, and a divergence has an
    upper bound only; the default bounds are those of the ratio."""
    flag = "algo.advantage.is_correction"
    level, mode, gating, bounds = (run.get(f"{flag}_{name}") for name in ("level", "mode", "gating", "threshold"))
    if level == "off":
        return
    if mode == "clip" and (level == "seq" or gating != "ratio"):
        yield error("clip corrects the ratio of tokens only", f"--{flag}_mode", "pass mask")
    if gating != "ratio" and bounds[0] > 0:
        yield error(f"{gating} has no lower bound {bounds[0]:g}", f"--{flag}_threshold", "pass one upper bound")


@check(RL)
def temperature(run: Run) -> Found:
    """A sampling temperature of 0, or a top_p below 1. Logits are divided by the temperature in the loss as well: 0
    makes the loss NaN, and all answers of a group the same. The loss knows nothing of top_p."""
    top_p = run.get("rollout.top_p")
    if run.get("rollout.temperature") <= 0:
        yield error("a temperature of 0 makes the loss NaN", "--rollout.temperature", "pass 1.0")
    elif top_p < 1:
        what = f"top_p {top_p:g} draws from another distribution than the loss assumes"
        yield warning(what, "--rollout.top_p", "pass 1.0")


@check(RL)
def advantage_range(run: Run) -> Found:
    """A reward range that cuts advantages. `--reward.clip_range` is applied after the group's mean was taken off: (0,
    1) drops everything below the mean."""
    low, high = run.get("reward.clip_range")
    if low > -1 or high < 1:
        what = f"the range ({low:g}, {high:g}) cuts advantages, not rewards"
        yield error(what, "--reward.clip_range", "leave it out: -10 10")


@check(RL)
def precision(run: Run) -> Found:
    """fp16 in reinforcement learning. The engines are started in bfloat16, and an update of weights in another type is
    refused by an assertion."""
    if run.get("ds.param_dtype") != "bf16":
        yield error("weights in fp16 cannot be sent to engines in bfloat16", "--ds.param_dtype", "pass bf16")
