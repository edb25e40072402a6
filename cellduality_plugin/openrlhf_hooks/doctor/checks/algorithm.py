"""Flags of reinforcement learning that break a run, or the meaning of its reward."""

from __future__ import annotations

from collections.abc import Iterator

from cellduality_plugin.openrlhf_hooks.doctor.finding import Finding, error, note, warning
from cellduality_plugin.openrlhf_hooks.doctor.run import Run

_GROUPED = ("rloo", "reinforce_baseline", "group_norm", "dr_grpo")


def zero_and_dynamic_batch(run: Run) -> Iterator[Finding]:
    """ZeRO 1 or 2 with dynamic batches.

    Each micro-batch is a whole step to DeepSpeed, and stages 1 and 2 keep the gradient of the last one only.
    """
    if run.get("train.dynamic_batch_enable") and run.get("ds.zero_stage") in (1, 2):
        yield error(
            f"with ZeRO {run.get('ds.zero_stage')} dynamic batches train on the last micro-batch alone",
            "--ds.zero_stage",
            "pass --ds.zero_stage 3, or leave out --train.dynamic_batch_enable",
        )


def adapters(run: Run) -> Iterator[Finding]:
    """LoRA or 4-bit weights in reinforcement learning.

    Weights go to vLLM under the names they have in the wrapped model, which vLLM does not know.
    """
    for name in ("ds.lora.rank", "ds.load_in_4bit"):
        if run.get(name):
            yield error(
                f"--{name} cannot be sent to vLLM",
                f"--{name}",
                "use LoRA in SFT, merge (openrlhf.cli.lora_combiner), then go on",
            )


def unmerged_adapters(run: Run) -> Iterator[Finding]:
    """LoRA in SFT.

    Only the adapter is saved; reinforcement learning needs whole weights.
    """
    if run.get("ds.lora.rank"):
        yield note(
            "SFT saves the adapter alone", "--ds.lora.rank", "merge it before stage 2: openrlhf.cli.lora_combiner"
        )


def partial_rollout(run: Run) -> Iterator[Finding]:
    """Partial rollouts.

    Weights change inside a sequence, and between an answer and its dual: the reward is of no policy there ever was.
    """
    if run.get("train.partial_rollout_enable"):
        yield error(
            "partial rollouts mix weights between an answer and its dual",
            "--train.partial_rollout_enable",
            "leave it out",
        )


def async_with_colocate(run: Run) -> Iterator[Finding]:
    """Asynchronous training together with shared cards.

    Then only the trainer's models share cards, and the engines wait for cards of their own.
    """
    if run.get("train.async_enable") and run.get("train.colocate_all"):
        engines = (run.get("vllm.num_engines") or 0) * run.get("vllm.tensor_parallel_size")
        yield warning(
            f"asynchronous training needs {engines} cards for the engines beside the trainer's {run.devices}",
            "--train.async_enable",
            "leave it out, or have as many cards",
        )


def estimator(run: Run) -> Iterator[Finding]:
    """An advantage estimator that trains a critic, or one answer a prompt.

    The default is `gae`: it loads a second model and ignores the group. One answer a prompt has no group to compare
    with.
    """
    name, size = run.get("algo.advantage.estimator"), run.get("rollout.n_samples_per_prompt")
    if name == "gae":
        yield warning(
            "the advantage estimator gae loads a critic as large as the policy",
            "--algo.advantage.estimator",
            "pass group_norm (the paper's) or dr_grpo",
        )
    elif size < 2 and name not in _GROUPED:  # those OpenRLHF refuses itself
        yield warning(f"{size} answer a prompt has no group to learn from", "--rollout.n_samples_per_prompt", "pass 8")


def dynamic_filtering(run: Run) -> Iterator[Finding]:
    """Dynamic filtering of a graded reward.

    It drops groups whose mean is not strictly inside the range. Groups whose rewards are all alike, which teach
    nothing, have a mean inside it.
    """
    if run.get("algo.dynamic_filtering_enable") and run.is_ours:
        low, high = run.get("algo.dynamic_filtering_range")
        yield warning(
            f"filtering by a mean in ({low:g}, {high:g}) keeps groups of equal graded rewards",
            "--algo.dynamic_filtering_enable",
            "leave it out: equal rewards have no advantage; minimum_spread in the configuration levels near ones",
        )


def clipping(run: Run) -> Iterator[Finding]:
    """Clip ranges with which the loss fails or is constant.

    A dual clip of 1 or less is refused by the actor after the model was loaded; with a range of 0 or less the clipped
    ratio does not depend on the policy.
    """
    dual_clip = run.get("actor.dual_clip")
    if dual_clip is not None and dual_clip <= 1:
        yield error(
            f"a dual clip of {dual_clip:g} is refused by the actor", "--actor.dual_clip", "pass more than 1, e.g. 3"
        )
    low, high = run.get("actor.eps_clip_low_high") or (run.get("actor.eps_clip"),) * 2
    if low <= 0 or high <= 0:
        yield error(f"the ratio is clipped to [{1 - low:g}, {1 + high:g}]", "--actor.eps_clip", "pass 0.2")


def correction(run: Run) -> Iterator[Finding]:
    """An importance-sampling correction that the loss refuses.

    `clip` needs the token's ratio, and a divergence has an upper bound only; the default bounds are those of the ratio.
    """
    settings = "algo.advantage.is_correction"
    level, mode, gating, bounds = (run.get(f"{settings}_{name}") for name in ("level", "mode", "gating", "threshold"))
    if level == "off":
        return
    if mode == "clip" and (level == "seq" or gating != "ratio"):
        yield error("clip corrects the ratio of tokens only", f"--{settings}_mode", "pass mask")
    if gating != "ratio" and bounds[0] > 0:
        yield error(f"{gating} has no lower bound {bounds[0]:g}", f"--{settings}_threshold", "pass one upper bound")


def temperature(run: Run) -> Iterator[Finding]:
    """A sampling temperature of 0, or a top_p below 1.

    Logits are divided by the temperature in the loss as well: 0 makes the loss NaN, and all answers of a group the
    same. The loss knows nothing of top_p.
    """
    value = run.get("rollout.temperature")
    if value <= 0:
        yield error("a temperature of 0 makes the loss NaN", "--rollout.temperature", "pass 1.0")
    elif run.get("rollout.top_p") < 1:
        yield warning(
            f"top_p {run.get('rollout.top_p'):g} draws from another distribution than the loss assumes",
            "--rollout.top_p",
            "pass 1.0",
        )


def advantage_range(run: Run) -> Iterator[Finding]:
    """A reward range that cuts advantages.

    `--reward.clip_range` is applied after the group's mean was taken off: (0, 1) drops everything below the mean.
    """
    low, high = run.get("reward.clip_range")
    if low > -1 or high < 1:
        yield error(
            f"the range ({low:g}, {high:g}) cuts advantages, not rewards", "--reward.clip_range", "leave it out: -10 10"
        )


def precision(run: Run) -> Iterator[Finding]:
    """fp16 in reinforcement learning.

    The engines are started in bfloat16, and an update of weights in another type is refused by an assertion.
    """
    if run.get("ds.param_dtype") != "bf16":
        yield error("weights in fp16 cannot be sent to engines in bfloat16", "--ds.param_dtype", "pass bf16")
