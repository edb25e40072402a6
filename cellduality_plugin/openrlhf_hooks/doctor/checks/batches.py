"""Batches that go into one another, and devices into engines."""

from __future__ import annotations

from collections.abc import Iterator

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.openrlhf_hooks.cpu.launch import slots
from cellduality_plugin.openrlhf_hooks.doctor.finding import Finding, error, note, told, warning
from cellduality_plugin.openrlhf_hooks.doctor.run import Run


def rollouts_fill_batches(run: Run) -> Iterator[Finding]:
    """Rollouts that do not fill whole training batches.

    What is left over is accumulated into the update of the next rollout, by then old, or is lost.
    """
    prompts, group, batch = _rollout(run)
    for name, value in (("rollout.batch_size", prompts), ("train.batch_size", batch)):
        if value < 1:
            yield error(f"a batch of {value}", f"--{name}", "pass 1 or more")
    if batch > 0 and (prompts * group) % batch:
        yield error(
            f"{prompts} prompts x {group} samples do not fill whole training batches of {batch}",
            "--train.batch_size",
            "make rollout.batch_size x n_samples_per_prompt a multiple of it",
        )


def batches_fill_devices(run: Run) -> Iterator[Finding]:
    """A training batch that does not part into micro-batches on every device.

    DeepSpeed asserts it when the model has been loaded on every card.
    """
    batch, micro = run.get("train.batch_size"), run.get("train.micro_batch_size")
    if run.shares is None:
        yield note("how many processes share a batch is the launcher's choice: not checked", run.command.words[0])
    elif micro < 1 or batch % (micro * run.shares):
        yield error(
            f"a batch of {batch} does not part into micro-batches of {micro} on {run.shares} devices",
            "--train.micro_batch_size",
            "make --train.batch_size a multiple of micro-batch x devices",
        )


def rollouts_fill_ranks(run: Run) -> Iterator[Finding]:
    """Rollouts that give some ranks fewer micro-batches than others.

    Ranks then reach a different number of collective calls, and wait for each other for an hour before they fail.
    """
    prompts, group, _ = _rollout(run)
    micro = run.get("rollout.micro_batch_size")
    if run.get("train.dynamic_batch_enable") or (run.shares or 1) < 2 or micro < 1:
        return
    if (prompts * group) % (micro * (run.shares or 1)):
        yield error(
            f"{prompts * group} samples do not part into micro-batches of {micro} on {run.shares} devices",
            "--rollout.micro_batch_size",
            "make rollout.batch_size x n_samples_per_prompt a multiple of rollout.micro_batch_size x devices",
        )


def prompts_fill_rollouts(run: Run) -> Iterator[Finding]:
    """Rows that leave a last, smaller rollout.

    It is rolled out like the others, then starves ranks where it does not part evenly, or makes no update.
    """
    prompts, group, batch = _rollout(run)
    if run.row_count is None or prompts < 1 or run.get("algo.dynamic_filtering_enable"):
        return
    rest = (run.row_count % prompts) * group
    if not rest:
        return
    where, mend = run.rows_flag, f"prepare a multiple of {prompts} rows (N_RL), or pass --data.max_samples"
    each = run.get("rollout.micro_batch_size") * (run.shares or 1)
    told = f"{run.row_count} rows leave a last rollout of {run.row_count % prompts} prompts"
    if (run.shares or 1) > 1 and not run.get("train.dynamic_batch_enable") and (each < 1 or rest % each):
        yield error(f"{told}, uneven across {run.shares} ranks", where, mend)
    elif batch > 0 and rest % batch:
        yield warning(f"{told}, less than a training batch", where, mend)


def rows_left_out(run: Run) -> Iterator[Finding]:
    """A limit on rows that leaves some out.

    Of each file the first rows are taken, before they are shuffled; in RL the limit holds for evaluation as well.
    """
    limit, counted = run.get("data.max_samples"), run.row_count
    if counted is not None and run.is_given("data.max_samples") and counted == limit:
        yield note(f"at most the first {limit} rows of each file are used", "--data.max_samples")


def any_update(run: Run) -> Iterator[Finding]:
    """Fewer samples than one training batch.

    The schedule then has no steps, and an update is made late or never.
    """
    batch = run.get("train.batch_size")
    if run.row_count is None or batch < 1:
        return
    samples = run.row_count * run.get("rollout.n_samples_per_prompt" if run.is_rl else "train.max_epochs")
    if samples < batch:
        yield error(
            f"{samples} samples are less than one training batch of {batch}",
            "--train.batch_size",
            "lower it, or prepare more rows",
        )


def engines(run: Run) -> Iterator[Finding]:
    """Engines that do not cover the cards, or none at all.

    With shared cards OpenRLHF asserts it after Ray has started; without engines nothing can be rolled out.
    """
    count, each = run.get("vllm.num_engines") or 0, run.get("vllm.tensor_parallel_size")
    if not count:
        yield error("no vLLM engine", "--vllm.num_engines", "pass as many as there are cards")
    elif run.colocated and run.devices != count * each:
        yield error(
            f"{count} engines of {each} cards do not cover the {run.devices} cards they share",
            "--vllm.num_engines",
            "make num_engines x tensor_parallel_size equal actor.num_nodes x actor.num_gpus_per_node",
        )
    heads = run.model.heads if run.model else 0
    if heads and heads % each:
        yield error(
            f"{heads} attention heads do not part over {each} cards", "--vllm.tensor_parallel_size", "pass a divisor"
        )


def colocated_sizes(run: Run) -> Iterator[Finding]:
    """Actor and reference of different size on shared cards.

    Left out, both are eight cards; OpenRLHF asserts that they are equal after Ray has started.
    """
    shared = run.get("train.colocate_all") or run.get("train.colocate_actor_ref")
    if not shared or not run.get("algo.kl.init_coef") > 0:
        return
    for name in ("num_nodes", "num_gpus_per_node"):
        actor, reference = run.get(f"actor.{name}"), run.get(f"ref.{name}")
        if actor != reference:
            yield error(
                f"actor and reference share cards but have {actor} and {reference}", f"--ref.{name}", f"pass {actor}"
            )


def enough_cards(run: Run) -> Iterator[Finding]:
    """More cards than there are, here or in the cluster that is joined; on a CPU, more slots.

    Ray waits for them without an end and without a word.
    """
    needed = run.flags.cards if run.is_rl else run.devices or 0
    where, mend = "--actor.num_gpus_per_node", "lower it and the engines (GPUS, ENGINES), or colocate"
    if run.address:
        if run.cluster is None:
            yield note(f"the cluster at {run.address} cannot be seen: whether it has room was not checked", where)
        elif needed > min(run.cluster.total.get(name, 0.0) for name in ("GPU", "CPU")):
            yield error(f"the run asks Ray for {needed} cards, a CPU each, and it has {run.cluster}", where, mend)
        elif needed > min(run.cluster.free.get(name, 0.0) for name in ("GPU", "CPU")):
            yield warning(f"the run asks Ray for {needed} cards, and waits for others: {run.cluster}", where, mend)
    elif run.command.on_cpu and not run.machine.gpus:
        try:
            slots(run.command.words, {**run.machine.variables, **run.command.variables})
        except CellDualityError as failure:
            yield told(failure)
    elif run.machine.gpus and not run.is_elsewhere and needed > run.machine.gpus:
        yield error(f"the run asks for {needed} cards, and there are {run.machine.gpus}", where, mend)


def _rollout(run: Run) -> tuple[int, int, int]:
    return run.get("rollout.batch_size"), run.get("rollout.n_samples_per_prompt"), run.get("train.batch_size")
