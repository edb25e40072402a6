"""`cellduality audit | configure | replay`: which reward prefers the truth, another reward, rollouts scored again."""

from __future__ import annotations

import collections
import itertools
import os
import sys
from collections.abc import Container
from functools import partial
from pathlib import Path
from typing import Annotated

from tqdm import tqdm
from typer import Argument, Option

from cellduality_plugin.commands import arguments
from cellduality_plugin.commands.arguments import (
    names_in,
    numbers_in,
    pairs,
    refuse_backend,
    refuse_elsewhere,
    reward_of,
    wide_console,
)
from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example
from cellduality_plugin.files import read_jsonl, write_json, write_jsonl, write_text
from cellduality_plugin.reward_names import read_reward


def audit_rewards(
    model: Annotated[Path, Option(help="The checkpoint that will be trained.")],
    data: arguments.Data,
    folder: Annotated[Path, Option("--out", help="Where audit.json, audit.md and audit.png go.")],
    config: arguments.ConfigFile = None,
    rewards: Annotated[
        list[str] | None,
        Option(
            help="A kind, file.py:Class or weight*kind+weight*kind, or configured; several with commas. By default the "
            "configured one and every built-in kind that can judge the task."
        ),
    ] = None,
    hidden: Annotated[str, Option(help="Shares of genes that a dual rebuilds, with commas; else as configured.")] = "",
    traces: Annotated[str, Option(help="Reasoning traces of the dual, with commas: each number is tried.")] = "",
    choose: Annotated[
        Path | None,
        Option(help="Write the configuration with the best for each task; one for which none agrees stays out."),
    ] = None,
    rl_rows: arguments.RlRows = None,
    chosen_rows: Annotated[Path | None, Option(help="Where RL rows of tasks that do not stay out go.")] = None,
    rollout_batch: arguments.RolloutBatch = 1,
    cells: Annotated[int, Option(min=2, help="Cells of each task.")] = 32,
    masks: Annotated[int, Option(min=0, help="Masks of a cell that are looked at; 0: all it has.")] = 0,
    samples: Annotated[int, Option(min=2, help="Answers of the policy to each question: a group.")] = 8,
    temperature: Annotated[float, Option(min=0.01, help="Of those answers, as in training.")] = 1.0,
    max_len: arguments.MaxLen = 2048,
    max_new_tokens: arguments.MaxNewTokens = 1024,
    tensor_parallel: arguments.TensorParallel = 1,
    backend: arguments.Backend = "vllm",
    seed: arguments.Seed = 42,
) -> None:
    """Put answers of known worth before each reward and report whether it prefers the truth, before training on it.

    Examples:

    `cellduality audit --model runs/cpu/sft --data runs/cpu/data --out runs/cpu/audit`

    `cellduality audit --model sft --data data --rewards duality,likelihood,mine.py:Mine --cells 64 --out audit`

    `cellduality audit --model sft --data data --rewards posterior,profile --hidden 0.25,1 --choose data/chosen.json
    --rl-rows data/rl.jsonl --chosen-rows data/rl_chosen.jsonl --rollout-batch 32 --out audit`
    """
    from cellduality_plugin.evaluation.audit.answers import AuditSettings
    from cellduality_plugin.evaluation.audit.engine import checkpoint_players
    from cellduality_plugin.evaluation.audit.run import audit, masks_in_training
    from cellduality_plugin.evaluation.audit.verdicts import audit_markdown, audit_sections, choices
    from cellduality_plugin.evaluation.plots import save_audit
    from cellduality_plugin.hub import local_model
    from cellduality_plugin.policies.offline import EngineSettings

    refuse_backend(backend)
    source = config or data / "cellduality.json"
    run = Config.load(source)
    if choose:
        refuse_elsewhere(choose, source, "--choose")
    if bool(rl_rows) != bool(chosen_rows) or (chosen_rows and not choose):
        what, where = "--choose, --rl-rows and --chosen-rows belong together", "--chosen-rows"
        raise CellDualityError(what, code="incomplete-flags", where=where, hint="give all three")
    settings = AuditSettings(
        rewards=tuple(reward_of(name, "--rewards", str) for item in rewards or [] for name in item.split(",")),
        hidden=numbers_in(hidden, "--hidden", float, 1e-3, 1.0),
        traces=numbers_in(traces, "--traces", int, 0, 64),
        cells=cells, masks=masks or None, masks_of_a_rollout=masks_in_training(data / "rl.jsonl"), samples=samples,
        temperature=temperature, seed=seed,
    )  # fmt: skip
    model = local_model(model)
    engine = EngineSettings(max_len, max_new_tokens, tensor_parallel_size=tensor_parallel)
    opened = partial(checkpoint_players, model, engine, run.dual, temperature=temperature, seed=seed, backend=backend)
    content = audit(data, run, opened, settings)
    content["provenance"] = {"command": sys.argv, "model": str(model)}
    if choose:
        content["choice"] = choices(content, run)
        contenders = {name: each["contender"] for name, each in content["choice"].items()}
        chosen = run.with_tasks({name: contender for name, contender in contenders.items() if contender})
        chosen.save(choose)
        if rl_rows and chosen_rows:
            print(write_chosen_rows(rl_rows, chosen_rows, chosen.tasks, rollout_batch), file=sys.stderr)
    page = audit_markdown(content)
    write_json(folder / "audit.json", content)
    write_text(folder / "audit.md", page)
    save_audit(folder / "audit.png", {section["name"]: section["findings"] for section in audit_sections(content)})
    print(page)
    print(f"{folder / 'audit.md'}, audit.json, audit.png")


def write_chosen_rows(rows: Path, result: Path, tasks: Container[str], batch: int) -> str:
    """Write the rows of ``tasks`` in their order, in whole batches if they fill one; return what was left out."""
    every = list(read_jsonl(rows))
    fit = [row for row in every if Example.from_label(row["label"]).task in tasks]
    kept = fit[: len(fit) // batch * batch or None]
    write_jsonl(result, kept)
    return (
        f"{result}: {len(kept)} of {len(every)} rows; {len(every) - len(fit)} of tasks that stay out, and the last "
        f"{len(fit) - len(kept)}, which fill no batch of {batch}"
    )


def configure(
    config: Annotated[Path, Argument(help="The cellduality.json to start from.")],
    result: Annotated[Path, Option("--out", help="The file to write, in the same folder.")],
    rewards: Annotated[str, Option(help="Rewards that change, task=KIND,... as in `data prepare`.")] = "",
    hidden: Annotated[str, Option(help="Share of genes that a dual rebuilds, task=SHARE,...; task= as the rows.")] = "",
    traces: Annotated[str, Option(help="Reasoning traces of the dual, task=NUMBER,... or *=NUMBER; 0: none.")] = "",
    votes: Annotated[str | None, Option(help="Tasks, with commas, whose groups share evidence by votes.")] = None,
    dual_url: Annotated[list[str] | None, Option(help="A frozen model there plays the dual; may be repeated.")] = None,
    dual_model: Annotated[str, Option(help="Its name there.")] = "",
    dual_key_variable: Annotated[str, Option(help="The environment variable that holds its key, if any.")] = "",
    records: Annotated[Path | None, Option(help="Folder in which a run keeps rollouts.")] = None,
) -> None:
    """Write the configuration of a run that differs in its reward: rows and vocabulary stay as they are.

    Examples:

    `cellduality configure data/cellduality.json --rewards "*=posterior" --out data/posterior.json`

    `cellduality configure data/cellduality.json --hidden "*=1" --traces "*=4" --out data/reasoned.json`

    `cellduality configure data/cellduality.json --dual-url http://10.0.0.5:8000/v1 --dual-model sft
    --out data/frozen.json`
    """
    refuse_elsewhere(result, config, "--out")
    if bool(dual_url) != bool(dual_model):
        what = "an address without a model, or a model without"
        raise CellDualityError(what, code="incomplete-flags", where="--dual-url", hint="give both")
    kinds = {task: reward_of(kind, "--rewards") for task, kind in pairs(rewards, "--rewards").items()}
    changed = Config.load(config).with_each("reward", kinds, "--rewards")
    shares = {task: share or None for task, share in pairs(hidden, "--hidden").items()}
    changed = changed.with_each("hidden", shares, "--hidden").with_each("traces", pairs(traces, "--traces"), "--traces")
    if votes is not None:
        changed = changed.with_each("votes", {name: name in names_in(votes) for name in changed.tasks}, "--votes")
    if dual_url:
        endpoint = {"urls": dual_url, "model": dual_model, "key_variable": dual_key_variable or None}
        changed = changed.with_settings(dual={"player": "frozen", "endpoint": endpoint})
    if records is not None:
        changed = changed.with_settings(records={"folder": os.path.relpath(records, result.parent)})
    changed.load_rewards(changed.load_tasks())
    changed.save(result)


def replay(
    records: Annotated[list[Path], Argument(help="Files of recorded rollouts, or folders of them.")],
    rewards: Annotated[str, Option(help="task=KIND,... as in `data prepare`; others as configured.")] = "",
    config: Annotated[Path | None, Option(help="The run's; the one CELLDUALITY_CONFIG names by default.")] = None,
    result: Annotated[Path | None, Option("--out", help="The reward of every rollout, as JSON lines.")] = None,
) -> None:
    """Score recorded rollouts by another reward: no model and no GPU, but only what was recorded can be asked.

    Mean and spread (the standard deviation within a group), the share of groups without any, and the correlation with
    the reward of then and, in rows with gold, with the truth.

    Example: `cellduality replay runs/cpu/rollouts --config runs/cpu/data/cellduality.json
    --rewards cell_type_annotation=duality-rbo`
    """
    from cellduality_plugin.replay import Replay, record_files, table

    files = record_files(records)
    wanted = {task: reward_of(kind, "--rewards") for task, kind in pairs(rewards, "--rewards").items()}
    work = Replay(Config.load(config), wanted)
    rows = itertools.chain.from_iterable(tqdm(work.run(files), unit=" groups", leave=False, disable=None))
    if result:
        write_jsonl(result, rows)
    else:
        collections.deque(rows, maxlen=0)
    wide_console().print(table(work.columns.values()))
    broken, skipped = work.reading.incomplete, work.reading.skipped
    left = f"; {broken} of them not whole, {skipped} lines left out: not whole" if broken or skipped else ""
    print(f"{work.groups} groups{left}")
    for column in work.columns.values():
        if column.missing:
            asks = f"{column.task}: {column.reward} asks what {column.missing} rollouts did not record"
            added = "".join(f"+0.01*{term.product}" for term in read_reward(column.reward))
            asked = f"--rewards {column.task}=0.99*CONFIGURED{added}"
            print(f"{asks}, and they do not count; record a run whose reward asks it, too: {asked}")
