"""The checks. A new one is a function that yields findings, with a docstring, and a line in the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cellduality_plugin.openrlhf_hooks.doctor.checks import (
    algorithm,
    batches,
    evaluation,
    memory,
    outputs,
    parsing,
    reward,
    rows,
    surroundings,
    templates,
)
from cellduality_plugin.openrlhf_hooks.doctor.command import RL, SFT
from cellduality_plugin.openrlhf_hooks.doctor.finding import Finding
from cellduality_plugin.openrlhf_hooks.doctor.run import Run

Check = Callable[[Run], Iterator[Finding]]

BOTH = (SFT, RL)
FLAGS: tuple[Check, ...] = (parsing.unknown_flags, parsing.refused_flags, parsing.corrected_flags)
"""What can be said even where the flags could not be read."""
CHECKS: tuple[tuple[tuple[str, ...], Check], ...] = (
    (BOTH, parsing.flags_for_a_gpu),
    (BOTH, parsing.readable_environment),
    ((RL,), reward.agent_and_url),
    ((RL,), reward.no_reward),
    ((RL,), reward.agent_file),
    ((RL,), reward.reward_file),
    ((RL,), reward.configuration),
    ((RL,), reward.dual_timeout),
    ((RL,), reward.dual_calls),
    ((RL,), reward.length_of_traces),
    ((RL,), algorithm.zero_and_dynamic_batch),
    ((RL,), algorithm.adapters),
    ((SFT,), algorithm.unmerged_adapters),
    ((RL,), algorithm.partial_rollout),
    ((RL,), algorithm.async_with_colocate),
    ((RL,), algorithm.estimator),
    ((RL,), algorithm.dynamic_filtering),
    ((RL,), algorithm.clipping),
    ((RL,), algorithm.correction),
    ((RL,), algorithm.temperature),
    ((RL,), algorithm.advantage_range),
    ((RL,), algorithm.precision),
    ((RL,), batches.rollouts_fill_batches),
    (BOTH, batches.batches_fill_devices),
    ((RL,), batches.rollouts_fill_ranks),
    ((RL,), batches.prompts_fill_rollouts),
    (BOTH, batches.rows_left_out),
    (BOTH, batches.any_update),
    ((RL,), batches.engines),
    ((RL,), batches.colocated_sizes),
    (BOTH, batches.enough_cards),
    (BOTH, rows.data_files),
    (BOTH, rows.keys),
    (BOTH, rows.model_folder),
    (BOTH, rows.positions),
    ((RL,), rows.room_for_prompts),
    ((RL,), rows.rl_rows),
    ((SFT,), rows.sft_rows),
    (BOTH, templates.chat_template_is_applied),
    ((SFT,), templates.template_given_as_text),
    (BOTH, templates.date_in_template),
    ((SFT,), templates.end_of_response),
    (BOTH, outputs.checkpoints_there),
    ((RL,), outputs.resumed_model),
    (BOTH, outputs.no_checkpoints),
    (BOTH, outputs.folders_can_be_written),
    ((RL,), outputs.relative_paths),
    (BOTH, outputs.unrotated_copies),
    (BOTH, outputs.disk_space),
    (BOTH, evaluation.evaluation_without_rows),
    ((RL,), evaluation.meaning_of_evaluation),
    (BOTH, surroundings.versions),
    (BOTH, surroundings.flash_attention),
    ((RL,), surroundings.configuration_reaches_workers),
    (BOTH, memory.card_memory),
    (BOTH, memory.host_memory),
    ((RL,), memory.engine_cache),
)
"""(the trainers it is for, the check), in the order of the report."""
