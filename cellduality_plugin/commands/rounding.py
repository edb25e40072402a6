"""`cellduality pseudo-label | rounds`: the two steps of a round that no trainer makes."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from cellduality_plugin.commands import arguments
from cellduality_plugin.commands.arguments import reward_of
from cellduality_plugin.commands.rewarding import write_chosen_rows
from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import write_json


def pseudo_label(
    model: Annotated[Path, Option(help="The policy: a Hugging Face folder.")],
    data: arguments.Data,
    rows: Annotated[Path, Option("--out", help="The SFT rows to write; a summary goes beside them as .json.")],
    config: arguments.ConfigFile = None,
    labelled: Annotated[Path | None, Option(help="The labelled SFT rows; sft.jsonl of the folder by default.")] = None,
    votes: Annotated[int, Option(min=0, help="Answers to each; 0: judge alone, the rule teacher reasons.")] = 8,
    temperature: Annotated[float, Option(min=0.01, help="Of those answers.")] = 1.0,
    judge: Annotated[
        str,
        Option(
            help="The reward that weighs answers: configured, a KIND, or none; or an audit.json: by task what named "
            "the audit's cells best, with votes or alone, and the rule teacher reasons."
        ),
    ] = "configured",
    choose: Annotated[str, Option(help="A cell's label: drawn (by default, of votes and a judge), or best.")] = "",
    cells: Annotated[int, Option(min=0, help="Cells of each task, at most; 0: all.")] = 0,
    weight: Annotated[float, Option(min=0.001, max=1.0, help="Share of cells that get rows.")] = 1.0,
    labelled_share: Annotated[float, Option(min=0.0, max=0.99, help="Of all rows, by repeats, at least.")] = 0.5,
    keep_above: Annotated[float, Option(min=0.0, max=1.0, help="Share that the likeliest label must have.")] = 0.0,
    previous: Annotated[Path | None, Option(help="The rows of an earlier round, to count what changed.")] = None,
    rl_rows: arguments.RlRows = None,
    rollout_batch: arguments.RolloutBatch = 1,
    tell_truth: Annotated[bool, Option("--tell-truth", help="For benchmarks: count the right labels.")] = False,
    batch: arguments.Batch = 64,
    max_len: arguments.MaxLen = 2048,
    max_new_tokens: arguments.MaxNewTokens = 1024,
    tensor_parallel: arguments.TensorParallel = 1,
    seed: arguments.Seed = 42,
) -> None:
    """Give training cells without a label one of the policy's, weighed by the reward, as SFT rows in both directions.

    What was answered is kept beside the rows: a run that was stopped goes on where it was. Of `--rl-rows`, those of
    tasks without a label here go beside the rows, as .rl.jsonl.

    Examples:

    `cellduality pseudo-label --model grpo --data data --labelled data/sft_traces.jsonl --out pseudo.jsonl`

    `cellduality pseudo-label --model sft --data data --judge none --out self_training.jsonl`
    """
    from cellduality_plugin.commands.pseudo_labels import PseudoSettings, Work
    from cellduality_plugin.evaluation.audit.engine import checkpoint_players
    from cellduality_plugin.evaluation.predictions import model_hash
    from cellduality_plugin.hub import local_model
    from cellduality_plugin.policies.offline import EngineSettings

    if rows.suffix != ".jsonl":
        what, hint = f"{rows} does not end in .jsonl", "name it ROWS.jsonl"
        raise CellDualityError(what, code="wrong-suffix", where="--out", hint=hint)
    run = Config.load(config or data / "cellduality.json")
    others, namers = {*run.tasks}, read_namers(Path(judge), run) if judge.endswith(".json") else {}
    if namers:
        run, judge = run.with_tasks({task: names["contender"] for task, names in namers.items()}), "configured"
    settings = PseudoSettings.read(
        {
            "votes": votes, "temperature": temperature, "judge": reward_of(judge, "--judge"),
            "choice": choose or ("drawn" if votes and judge != "none" and not namers else "best"),
            "alone": tuple(task for task, names in namers.items() if not names["votes"]),
            "reasoning": "rule" if namers else "policy", "cells": cells or None,
            "weight": weight, "labelled_share": labelled_share, "keep_above": keep_above, "batch": batch, "seed": seed,
        }
    )  # fmt: skip
    model = local_model(model)
    engine = EngineSettings(max_len, max_new_tokens, tensor_parallel_size=tensor_parallel)
    work = Work(data, run, settings, labelled or data / "sft.jsonl", previous, tell_truth)
    players = partial(checkpoint_players, model, engine, run.dual, temperature=temperature, seed=seed)
    origin = {"model": model_hash(model), "engine": [max_len, max_new_tokens]}
    content = work.write(rows, players if work.asks_policy else nullcontext, origin, model.name)
    if rl_rows:
        print(write_chosen_rows(rl_rows, rows.with_suffix(".rl.jsonl"), others - {*content["tasks"]}, rollout_batch))
    content["provenance"] = {"command": sys.argv, "model": str(model)}
    write_json(rows.with_suffix(".json"), content)


def read_namers(path: Path, config: Config) -> dict[str, dict[str, Any]]:
    """Return by task of ``config`` who names cells without a label, as an audit found; exit code 3 without any."""
    from cellduality_plugin.evaluation.audit.run import read_audit

    choice = read_audit(path).get("choice", {})
    found = {task: each["namer"] for task, each in choice.items() if task in config.tasks and "namer" in each}
    if not found:
        what, hint = "nothing was chosen that could name cells", "audit with --choose and a task that asks for a label"
        raise CellDualityError(what, code="nothing-to-label", where=str(path), hint=hint, exit_code=3)
    return found


def rounds(
    folders: Annotated[list[Path], Argument(help="The folder of each round, which is called by its number.")],
    result: Annotated[Path, Option("--out", help="The rounds.json to write.")],
    patience: Annotated[int, Option(min=1, help="Rounds in a row that may do no better than the best.")] = 1,
) -> None:
    """Tell which round is kept and whether another is worth its time: prints its number, and `on` or `stop`.

    Example: `cellduality rounds runs/cpu/rounds/1 runs/cpu/rounds/2 --out runs/cpu/rounds.json --patience 1`
    """
    from cellduality_plugin.evaluation.rounds.summary import read_round, rounds_json

    content = rounds_json(sorted(map(read_round, folders), key=lambda each: each["round"]), patience)
    write_json(result, content)
    print(content["kept"], "on" if content["goes_on"] else "stop")
    print(content["why"], file=sys.stderr)
