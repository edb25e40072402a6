"""What one flag may not be, a finding a row; several rows may be of one check."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from cellduality_plugin.openrlhf_hooks.doctor.check import Check, Finding, Found, Severity
from cellduality_plugin.openrlhf_hooks.doctor.flags import RL, SFT, TRAINERS
from cellduality_plugin.openrlhf_hooks.doctor.run import PASS_AGENT, Run


def _ours(run: Run) -> bool:
    return not run.is_rl or run.is_ours


def saves(run: Run) -> bool:
    return run.get("ckpt.save_steps") != -1 and not run.get("ckpt.disable_ds")


def samples(run: Run) -> int:
    """Return the samples of a rollout."""
    return int(run.get("rollout.batch_size") * run.get("rollout.n_samples_per_prompt"))


def _gates(run: Run) -> str:
    """Return what the importance-sampling correction goes by: "token ratio", "seq tv"; empty if it is off."""
    level, gating = (run.get(f"algo.advantage.is_correction_{name}") for name in ("level", "gating"))
    return "" if level == "off" else f"{level} {gating}"


def _updates_none(batch: int, run: Run) -> bool:
    times = run.get("rollout.n_samples_per_prompt" if run.is_rl else "train.max_epochs")
    return run.row_count is not None and run.row_count * times < batch


def _unlike_actor(name: str) -> Callable[[Any, Run], bool]:
    shared = ("train.colocate_all", "train.colocate_actor_ref")
    return lambda size, run: run.has_reference and any(map(run.get, shared)) and size != run.get(f"actor.{name}")


_SFT, _RL = (SFT,), (RL,)
_GROUPS = ("gae", "rloo", "reinforce_baseline", "group_norm", "dr_grpo")  # OpenRLHF refuses one answer of the latter
_REWARDS = ("train.agent_func_path", "reward.remote_url", "reward.model_name_or_path")
_MERGE = "use LoRA in SFT, merge (openrlhf.cli.lora_combiner), then go on"
# check, of whose runs, severity, flag, whether it is wrong (asked with its value), what ({} stands for it), what to do
_ROWS: list[tuple[Any, ...]] = [
    ("zero_and_dynamic_batch", _RL, "error", "ds.zero_stage",
     lambda stage, run: stage in (1, 2) and run.get("train.dynamic_batch_enable"),
     "with ZeRO {} dynamic batches train on the last micro-batch alone", "pass 3, or no dynamic batches"),
    ("adapters", _RL, "error", "ds.lora.rank", lambda rank, _: rank, "LoRA cannot be sent to vLLM", _MERGE),
    ("adapters", _RL, "error", "ds.load_in_4bit", lambda on, _: on, "4-bit weights cannot be sent to vLLM", _MERGE),
    ("unmerged_adapters", _SFT, "note", "ds.lora.rank", lambda rank, _: rank, "SFT saves the adapter alone",
     "merge it before stage 2: openrlhf.cli.lora_combiner"),
    ("partial_rollout", _RL, "error", "train.partial_rollout_enable", lambda on, _: on,
     "partial rollouts mix weights between an answer and its dual", "leave it out"),
    ("async_with_colocate", _RL, "warning", "train.async_enable",
     lambda on, run: on and run.get("train.colocate_all"),
     "asynchronous training needs cards for the engines beside the trainer's", "leave it out, or have as many cards"),
    ("estimator", _RL, "warning", "algo.advantage.estimator", lambda name, _: name == "gae",
     "{} loads a critic as large as the policy", "pass group_norm (the paper's) or dr_grpo"),
    ("estimator", _RL, "warning", "rollout.n_samples_per_prompt",
     lambda size, run: size < 2 and run.get("algo.advantage.estimator") not in _GROUPS,
     "{} answer a prompt has no group to learn from", "pass 8"),
    ("dynamic_filtering", _RL, "warning", "algo.dynamic_filtering_enable", lambda on, run: on and run.is_ours,
     "filtering by a mean keeps groups of equal graded rewards",
     "leave it out: equal rewards have no advantage; minimum_spread in the configuration levels near ones"),
    ("clipping", _RL, "error", "actor.dual_clip", lambda clip, _: clip is not None and clip <= 1,
     "a dual clip of {:g} is refused by the actor", "pass more than 1, e.g. 3"),
    ("clipping", _RL, "error", "actor.eps_clip",
     lambda clip, run: min(run.get("actor.eps_clip_low_high") or (clip,)) <= 0,
     "the clipped ratio does not depend on the policy", "pass 0.2"),
    ("correction", _RL, "error", "algo.advantage.is_correction_mode",
     lambda mode, run: mode == "clip" and _gates(run) not in ("", "token ratio"),
     "clip corrects the ratio of tokens only", "pass mask"),
    ("correction", _RL, "error", "algo.advantage.is_correction_threshold",
     lambda bounds, run: bounds[0] > 0 and _gates(run).endswith(("kl", "tv")),
     "a divergence has no lower bound", "pass one upper bound"),
    ("temperature", _RL, "error", "rollout.temperature", lambda value, _: value <= 0,
     "a temperature of 0 makes the loss NaN", "pass 1.0"),
    ("temperature", _RL, "warning", "rollout.top_p", lambda value, _: value < 1,
     "top_p {:g} draws from another distribution than the loss assumes", "pass 1.0"),
    ("advantage_range", _RL, "error", "reward.clip_range", lambda value, _: value[0] > -1 or value[1] < 1,
     "the range {} cuts advantages, not rewards", "leave it out: -10 10"),
    ("precision", _RL, "error", "ds.param_dtype", lambda value, _: value != "bf16",
     "weights in {} cannot be sent to engines in bfloat16", "pass bf16"),
    ("agent_and_url", _RL, "warning", "reward.remote_url",
     lambda _, run: run.agent and run.flags.given.get("reward.remote_url"), "the agent overrides it", "leave out one"),
    ("agent_and_url", _RL, "warning", "reward.model_name_or_path",
     lambda _, run: run.agent and run.flags.given.get("reward.model_name_or_path"), "the agent overrides it",
     "leave out one"),
    ("no_reward", _RL, "error", "train.agent_func_path", lambda _, run: not any(map(run.get, _REWARDS)),
     "nothing gives a reward", PASS_AGENT),
    ("keys", TRAINERS, "error", "data.input_key", lambda key, run: key != "input" and _ours(run),
     "rows call {} 'input'", "pass input"),
    ("keys", _RL, "error", "data.label_key", lambda key, run: key != "label" and _ours(run),
     "rows call {} 'label'", "pass label"),
    ("keys", _SFT, "error", "data.output_key", lambda key, _: key != "output", "rows call {} 'output'", "pass output"),
    ("positions", TRAINERS, "note", "data.max_len",
     lambda _, run: run.model and not run.model.is_missing and not run.model.size("max_position_embeddings"),
     "how many positions the model has could not be checked", ""),
    ("positions", TRAINERS, "error", "data.max_len",
     lambda size, run: run.model and 0 < run.model.size("max_position_embeddings") < size,
     "the model has fewer positions than {}", "lower it (MAX_LEN)"),
    ("room_for_prompts", _RL, "warning", "rollout.max_new_tokens", lambda limit, _: limit is None,
     "responses have no limit", "pass less than --data.max_len"),
    ("room_for_prompts", _RL, "error", "rollout.max_new_tokens",
     lambda limit, run: limit is not None and limit >= run.get("data.max_len"),
     "{} tokens of a response leave no room for a prompt", "lower it"),
    ("chat_template_is_applied", TRAINERS, "error", "data.apply_chat_template", lambda on, run: not on and _ours(run),
     "questions are not framed by the chat template, and the dual is", "pass it"),
    ("chat_template_is_applied", TRAINERS, "note", "data.input_template",
     lambda _, run: run.flags.given.get("data.input_template") and run.get("data.apply_chat_template") and _ours(run),
     "the chat template is applied, so the input template is not", "leave it out"),
    ("template_given_as_text", _SFT, "error", "data.tokenizer_chat_template", lambda text, _: text and "{" not in text,
     "no template that shows a message, but perhaps a path: {:.60}", 'pass the text: "$(cat FILE)"'),
    ("rollouts_fill_batches", _RL, "error", "rollout.batch_size", lambda size, _: size < 1, "a batch of {}",
     "pass 1 or more"),
    ("rollouts_fill_batches", _RL, "error", "train.batch_size", lambda batch, run: batch < 1 or samples(run) % batch,
     "rollouts do not fill whole training batches of {}",
     "pass 1 or more, and make rollout.batch_size x n_samples_per_prompt a multiple of it"),
    ("batches_fill_devices", TRAINERS, "note", "train.micro_batch_size", lambda _, run: run.shares is None,
     "how many processes share a batch is the launcher's choice: not checked", ""),
    ("batches_fill_devices", TRAINERS, "error", "train.micro_batch_size",
     lambda size, run: run.shares is not None and (size < 1 or run.get("train.batch_size") % (size * run.shares)),
     "a batch does not part into micro-batches of {} on every device",
     "make --train.batch_size a multiple of micro-batch x devices"),
    ("rollouts_fill_ranks", _RL, "error", "rollout.micro_batch_size",
     lambda size, run: (run.shares or 1) > 1 and size > 0 and samples(run) % (size * run.shares)
     and not run.get("train.dynamic_batch_enable"),
     "a rollout does not part into micro-batches of {} on every device",
     "make rollout.batch_size x n_samples_per_prompt a multiple of rollout.micro_batch_size x devices"),
    ("rows_left_out", TRAINERS, "note", "data.max_samples",
     lambda limit, run: limit == run.row_count and "data.max_samples" in run.flags.given,
     "at most the first {} rows of each file are used", ""),
    ("any_update", TRAINERS, "error", "train.batch_size", _updates_none, "fewer samples than one training batch of {}",
     "lower it, or prepare more rows"),
    ("engines", _RL, "error", "vllm.num_engines", lambda count, _: not count, "no vLLM engine",
     "pass as many as there are cards"),
    ("engines", _RL, "error", "vllm.num_engines",
     lambda count, run: count and run.colocated and run.devices != count * run.get("vllm.tensor_parallel_size"),
     "{} engines do not cover the cards they share",
     "make num_engines x tensor_parallel_size equal actor.num_nodes x actor.num_gpus_per_node"),
    ("engines", _RL, "error", "vllm.tensor_parallel_size",
     lambda each, run: run.model and run.model.size("num_attention_heads") % each,
     "the model's attention heads do not part over {} cards", "pass a divisor"),
    ("colocated_sizes", _RL, "error", "ref.num_nodes", _unlike_actor("num_nodes"),
     "the reference has {}, and shares cards with an actor of another size", "pass the actor's"),
    ("colocated_sizes", _RL, "error", "ref.num_gpus_per_node", _unlike_actor("num_gpus_per_node"),
     "the reference has {}, and shares cards with an actor of another size", "pass the actor's"),
    ("no_checkpoints", TRAINERS, "note", "ckpt.save_steps", lambda _, run: not saves(run),
     "a stopped run cannot be resumed", "pass how often to save, e.g. 20"),
    ("unrotated_copies", TRAINERS, "warning", "ckpt.save_hf", lambda on, run: on and run.get("ckpt.save_steps") != -1,
     "a copy of the whole model is kept at every save", "delete old ones"),
    ("evaluation_without_rows", TRAINERS, "warning", "eval.steps", lambda n, run: n == -1 and run.get("eval.dataset"),
     "rows for evaluation, and no step at which it happens", "pass how often, e.g. 20"),
    ("evaluation_without_rows", TRAINERS, "warning", "eval.dataset",
     lambda rows, run: not rows and run.get("eval.steps") != -1, "steps for evaluation, and no rows",
     "pass rows, or leave out --eval.steps"),
    ("meaning_of_evaluation", _RL, "note", "eval.dataset", lambda rows, run: rows and run.is_ours,
     "eval_*_pass1 is the mean dual reward, not accuracy, and has no step 0",
     "cellduality evaluate measures accuracy, before and after"),
]  # fmt: skip


def _look(severity: Severity, flag: str, wrong: Callable[[Any, Run], Any], what: str, hint: str, run: Run) -> Found:
    value = run.get(flag)
    if wrong(value, run):
        yield Finding(severity, what.format(value), f"--{flag}", hint)


CHECKS = [Check(name, partial(_look, *row), trainers) for name, trainers, *row in _ROWS]
