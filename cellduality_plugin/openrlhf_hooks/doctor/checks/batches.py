"""Batches that go into one another, and devices into engines."""

from __future__ import annotations

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.openrlhf_hooks.cpu.launch import slots
from cellduality_plugin.openrlhf_hooks.doctor.check import Found, check, error, finding_of, note, warning
from cellduality_plugin.openrlhf_hooks.doctor.command import RL
from cellduality_plugin.openrlhf_hooks.doctor.run import Run


@check(RL)
def rollouts_fill_batches(run: Run) -> Found:
    """Rollouts that do not fill whole training batches. What is left over is accumulated into the update of the next
    rollout, by then old, or is lost."""
    prompts, group, batch = _sizes(run)
    for name, value in (("rollout.batch_size", prompts), ("train.batch_size", batch)):
        if value < 1:
            yield error(f"a batch of {value}", f"--{name}", "pass 1 or more")
    if batch > 0 and (prompts * group) % batch:
        what = f"{prompts} prompts x {group} samples do not fill whole training batches of {batch}"
        yield error(what, "--train.batch_size", "make rollout.batch_size x n_samples_per_prompt a multiple of it")


@check()
def batches_fill_devices(run: Run) -> Found:
    """A training batch that does not part into micro-batches on every device. DeepSpeed asserts it when the model has
    been loaded on every card."""
    batch, micro = run.get("train.batch_size"), run.get("train.micro_batch_size")
    if run.shares is None:
        yield note("how many processes share a batch is the launcher's choice: not checked", run.command.words[0])
    elif micro < 1 or batch % (micro * run.shares):
        what = f"a batch of {batch} does not part into micro-batches of {micro} on {run.shares} devices"
        yield error(what, "--train.micro_batch_size", "make --train.batch_size a multiple of micro-batch x devices")


@check(RL)
def rollouts_fill_ranks(run: Run, shares: int) -> Found:
    """Rollouts that give some ranks fewer micro-batches than others. Ranks then reach a different number of collective
    calls, and wait for each other for an hour before they fail."""
    prompts, group, _ = _sizes(run)
    micro, samples = run.get("rollout.micro_batch_size"), prompts * group
    if shares > 1 and micro > 0 and samples % (micro * shares) and not run.get("train.dynamic_batch_enable"):
        what = f"{samples} samples do not part into micro-batches of {micro} on {shares} devices"
        hint = "make rollout.batch_size x n_samples_per_prompt a multiple of rollout.micro_batch_size x devices"
        yield error(what, "--rollout.micro_batch_size", hint)


@check(RL)
def prompts_fill_rollouts(run: Run, row_count: int, shares: int) -> Found:
    """Rows that leave a last, smaller rollout. It is rolled out like the others, then starves ranks where it does not
    part evenly, or makes no update."""
    prompts, group, batch = _sizes(run)
    if prompts < 1 or not row_count % prompts or run.get("algo.dynamic_filtering_enable"):
        return
    left, each = row_count % prompts, run.get("rollout.micro_batch_size") * shares
    what = f"{row_count} rows leave a last rollout of {left} prompts"
    hint = f"prepare a multiple of {prompts} rows (N_RL)"
    if shares > 1 and not run.get("train.dynamic_batch_enable") and (each < 1 or left * group % each):
        yield error(f"{what}, uneven across {shares} ranks", run.rows_flag, f"{hint}, or pass --data.max_samples")
    elif batch > 0 and left * group % batch:
        yield warning(f"{what}, less than a training batch", run.rows_flag, f"{hint}, or pass --data.max_samples")


@check()
def rows_left_out(run: Run, row_count: int) -> Found:
    """A limit on rows that leaves some out. Of each file the first rows are taken, before they are shuffled; in RL the
    limit holds for evaluation as well."""
    if row_count == run.flags.given.get("data.max_samples"):
        yield note(f"at most the first {row_count} rows of each file are used", "--data.max_samples")


@check()
def any_update(run: Run, row_count: int) -> Found:
    """Fewer samples than one training batch. The schedule then has no steps, and an update is made late or never."""
    samples = row_count * run.get("rollout.n_samples_per_prompt" if run.is_rl else "train.max_epochs")
    batch = run.get("train.batch_size")
    if samples < batch:
        what = f"{samples} samples are less than one training batch of {batch}"
        yield error(what, "--train.batch_size", "lower it, or prepare more rows")


@check(RL)
def engines(run: Run) -> Found:
    """Engines that do not cover the cards, or none at all. With shared cards OpenRLHF asserts it after Ray has started;
    without engines nothing can be rolled out."""
    count, each = run.get("vllm.num_engines") or 0, run.get("vllm.tensor_parallel_size")
    if not count:
        yield error("no vLLM engine", "--vllm.num_engines", "pass as many as there are cards")
    elif run.colocated and run.devices != count * each:
        what = f"{count} engines of {each} cards do not cover the {run.devices} cards they share"
        hint = "make num_engines x tensor_parallel_size equal actor.num_nodes x actor.num_gpus_per_node"
        yield error(what, "--vllm.num_engines", hint)
    heads = run.model.size("num_attention_heads") if run.model else 0
    if heads % each:
        what = f"{heads} attention heads do not part over {each} cards"
        yield error(what, "--vllm.tensor_parallel_size", "pass a divisor")


@check(RL)
def colocated_sizes(run: Run) -> Found:
    """Actor and reference of different size on shared cards. Left out, both are eight cards; OpenRLHF asserts that they
    are equal after Ray has started."""
    shared = run.get("train.colocate_all") or run.get("train.colocate_actor_ref")
    for name in ("num_nodes", "num_gpus_per_node"):
        actor, reference = run.get(f"actor.{name}"), run.get(f"ref.{name}")
        if shared and run.has_reference and actor != reference:
            what = f"actor and reference share cards but have {actor} and {reference}"
            yield error(what, f"--ref.{name}", f"pass {actor}")


@check()
def enough_cards(run: Run) -> Found:
    """More cards than there are, here or in the cluster that is joined; on a CPU, more slots. Ray waits for them
    without an end and without a word."""
    needed = run.flags.cards if run.is_rl else run.devices or 0
    where, hint = "--actor.num_gpus_per_node", "lower it and the engines (GPUS, ENGINES), or colocate"
    if run.address:
        cluster = run.cluster
        if cluster is None:
            yield note(f"the cluster at {run.address} cannot be seen: whether it has room was not checked", where)
        elif needed > min(cluster.total.get(name, 0.0) for name in ("GPU", "CPU")):
            yield error(f"the run asks Ray for {needed} cards, a CPU each, and it has {cluster}", where, hint)
        elif needed > min(cluster.free.get(name, 0.0) for name in ("GPU", "CPU")):
            yield warning(f"the run asks Ray for {needed} cards, and waits for others: {cluster}", where, hint)
    elif run.on_cpu:
        try:
            slots(run.command.words, run.variables)
        except CellDualityError as failure:
            yield finding_of(failure)
    elif not run.is_elsewhere and needed > run.machine.gpus > 0:
        yield error(f"the run asks for {needed} cards, and there are {run.machine.gpus}", where, hint)


def _sizes(run: Run) -> tuple[int, int, int]:
    """Return the prompts of a rollout, the samples of a prompt, the samples of a training batch."""
    return run.get("rollout.batch_size"), run.get("rollout.n_samples_per_prompt"), run.get("train.batch_size")
