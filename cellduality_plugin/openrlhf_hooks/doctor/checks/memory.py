"""Memory, by the formulas of the estimate."""

from __future__ import annotations

from collections.abc import Iterator

from cellduality_plugin.openrlhf_hooks.doctor.finding import Finding, error, note, warning
from cellduality_plugin.openrlhf_hooks.doctor.machine import GIB
from cellduality_plugin.openrlhf_hooks.doctor.memory import HOST, cache_tokens, parts, totals
from cellduality_plugin.openrlhf_hooks.doctor.run import Run


def card_memory(run: Run) -> Iterator[Finding]:
    """More memory than a card has, by the estimate.

    The first update, or the first long answer, ends in "out of memory".
    """
    found = parts(run)
    if not found and run.model is not None and not run.model.is_missing:
        yield note("the memory a run takes could not be estimated", f"{run.model_flag} {run.model.name}")
    card = run.machine.gpu_memory
    for place, (generating, training, _) in totals(found).items():
        if place != HOST and card is not None and max(generating, training) > card:
            when, most = max(("training", training), ("generating", generating), key=lambda pair: pair[1])
            yield warning(
                f"a {place} takes about {most / GIB:.0f} GiB while {when}, and has {card / GIB:.0f}",
                "--gpu-memory",
                "smaller micro-batches, --ds.adam_offload, --ds.enable_sleep and --vllm.enable_sleep take less",
            )


def host_memory(run: Run) -> Iterator[Finding]:
    """More memory than the host has, by the estimate.

    The kernel ends some process of the run; Ray reports a worker that died.
    """
    host = run.machine.host_memory
    for place, amounts in totals(parts(run)).items():
        if place == HOST and host is not None and max(amounts) > 0.9 * host and not run.is_elsewhere:
            yield warning(
                f"the host takes about {max(amounts) / GIB:.0f} GiB, and has {host / GIB:.0f}",
                "--host-memory",
                "use fewer processes a node, or leave out offloading",
            )


def engine_cache(run: Run) -> Iterator[Finding]:
    """An engine whose cache does not hold one whole sequence, or not a whole group.

    With less than one, vLLM refuses to start; with less than a group, samples wait for each other.
    """
    tokens, context = cache_tokens(run), run.get("data.max_len")
    if tokens is None:
        return
    mend = "raise --vllm.gpu_memory_utilization, or lower --data.max_len"
    if tokens < context:
        yield error(
            f"the engine can remember {max(0, tokens)} tokens, and one sequence has {context}",
            "--vllm.gpu_memory_utilization",
            mend,
        )
    elif tokens < context * run.get("rollout.n_samples_per_prompt"):
        yield warning(
            f"the engine can remember {tokens} tokens, less than a group needs", "--vllm.gpu_memory_utilization", mend
        )
