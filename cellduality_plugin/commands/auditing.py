"""`cellduality audit`: does a reward prefer the truth, before anything is trained on it?"""

from __future__ import annotations

import json
import sys
from collections.abc import Container
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cellduality_plugin.commands.arguments import numbers_in, refuse_elsewhere, refuse_unknown, reward_of
from cellduality_plugin.commands.options import Backend, MaxLen, MaxNewTokens, TensorParallel
from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example
from cellduality_plugin.files import read_jsonl, write_jsonl, write_text

if TYPE_CHECKING:
    from cellduality_plugin.evaluation.audit.engine import Players


def audit_rewards(
    model: Annotated[Path, typer.Option(help="The checkpoint that will be trained.")],
    data: Annotated[Path, typer.Option(help="The prepared folder.")],
    folder: Annotated[Path, typer.Option("--out", help="Where audit.json, audit.md and audit.png go.")],
    config: Annotated[
        Path | None, typer.Option(help="The configuration; that of the prepared folder by default.")
    ] = None,
    rewards: Annotated[
        list[str] | None,
        typer.Option(
            help="A kind, file.py:Class or weight*kind+weight*kind, or configured; several with commas. By default "
            "the configured one and every built-in kind that can judge the task."
        ),
    ] = None,
    hidden: Annotated[
        str,
        typer.Option(
            help="Shares of a cell's genes that the dual of a label rebuilds, in (0, 1], with commas: each reward "
            "is tried under each. By default as configured."
        ),
    ] = "",
    traces: Annotated[
        str,
        typer.Option(help="Reasoning traces of the dual after which likelihoods are read, with commas: each is tried."),
    ] = "",
    choose: Annotated[
        Path | None,
        typer.Option(
            help="Write the configuration with the best of them for each task to this file beside the other; a "
            "task for which none agrees with the truth stays out."
        ),
    ] = None,
    rl_rows: Annotated[Path | None, typer.Option(help="The RL rows of all tasks, for --chosen-rows.")] = None,
    chosen_rows: Annotated[
        Path | None, typer.Option(help="Write those of the tasks that do not stay out to this file, in their order.")
    ] = None,
    rollout_batch: Annotated[
        int, typer.Option(min=1, help="Their number is cut to a multiple of this, where there are as many.")
    ] = 1,
    cells: Annotated[int, typer.Option(min=2, help="Cells of each task.")] = 32,
    masks: Annotated[int, typer.Option(min=0, help="Masks of a cell that are looked at; 0: all it has.")] = 0,
    samples: Annotated[int, typer.Option(min=2, help="Answers of the policy to each question: a group.")] = 8,
    temperature: Annotated[float, typer.Option(min=0.01, help="Of those answers, as in training.")] = 1.0,
    max_len: MaxLen = 2048,
    max_new_tokens: MaxNewTokens = 1024,
    tensor_parallel: TensorParallel = 1,
    backend: Backend = "vllm",
    seed: Annotated[int, typer.Option(help="Of every random choice.")] = 42,
) -> None:
    """Put answers of known worth before each reward and report whether it prefers the truth, before training on it.

    Examples:

    `cellduality audit --model runs/cpu/sft --data runs/cpu/data --out runs/cpu/audit`

    `cellduality audit --model sft --data data --rewards duality,likelihood,mine.py:Mine --cells 64 --out audit`

    `cellduality audit --model sft --data data --rewards posterior,profile --hidden 0.25,1 --choose data/chosen.json
    --rl-rows data/rl.jsonl --chosen-rows data/rl_chosen.jsonl --rollout-batch 32 --out audit`
    """
    from cellduality_plugin.evaluation.audit.engine import checkpoint_players
    from cellduality_plugin.evaluation.audit.run import AuditSettings, audit, masks_in_training
    from cellduality_plugin.evaluation.audit.tables import audit_markdown
    from cellduality_plugin.hub import local_model
    from cellduality_plugin.policies.offline import EngineSettings

    refuse_unknown(("--backend", backend, ("vllm", "transformers")))
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
        cells=cells,
        masks=masks or None,
        masks_of_a_rollout=masks_in_training(data / "rl.jsonl"),
        samples=samples,
        temperature=temperature,
        seed=seed,
    )
    model = local_model(model)
    engine = EngineSettings(max_len, max_new_tokens, tensor_parallel_size=tensor_parallel)

    def opened() -> AbstractContextManager[Players]:
        return checkpoint_players(model, engine, run.dual, temperature=temperature, seed=seed, backend=backend)

    content = audit(data, run, opened, settings)
    content["provenance"] = {"command": sys.argv, "model": str(model)}
    if choose:
        chosen = write_choice(content, run, choose)
        if rl_rows and chosen_rows:
            print(write_chosen_rows(rl_rows, chosen_rows, chosen, rollout_batch), file=sys.stderr)
    write_audit(content, folder)
    print(audit_markdown(content))
    print(f"{folder / 'audit.md'}, audit.json, audit.png")


def write_choice(content: dict[str, Any], config: Config, result: Path) -> Container[str]:
    """Put into ``content`` what each task is trained with, write the configuration, and return the tasks in it."""
    from cellduality_plugin.evaluation.audit.verdicts import choices

    found = choices(content, config)
    content["choice"] = {name: each.as_dict() for name, each in found.items()}
    chosen = config.with_tasks({name: asdict(each.contender) for name, each in found.items() if each.contender})
    chosen.save(result)
    return chosen.tasks


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


def write_audit(content: dict[str, Any], folder: Path) -> None:
    """Write audit.json, audit.md and audit.png, each whole or not at all; a CellDualityError without matplotlib."""
    from cellduality_plugin.evaluation.audit.tables import audit_markdown, audit_sections
    from cellduality_plugin.evaluation.plots import save_audit

    write_text(folder / "audit.json", json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
    write_text(folder / "audit.md", audit_markdown(content))
    save_audit(folder / "audit.png", {section["name"]: section["findings"] for section in audit_sections(content)})
