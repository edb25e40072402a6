"""`cellduality configure`: another reward, or another player of the dual, for data that are prepared already."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from cellduality_plugin.commands.arguments import names_in, pairs, refuse_elsewhere, reward_of
from cellduality_plugin.errors import CellDualityError


def configure(
    config: Annotated[Path, Argument(help="The cellduality.json to start from.")],
    result: Annotated[Path, Option("--out", help="The file to write, in the same folder.")],
    rewards: Annotated[str, Option(help="Rewards that change, task=KIND,... as in `data prepare`.")] = "",
    hidden: Annotated[
        str,
        Option(help="Share of genes that the dual of a label rebuilds, task=SHARE,... or *=SHARE; task= as the rows."),
    ] = "",
    traces: Annotated[
        str, Option(help="Reasoning traces that what is hidden is scored after, task=NUMBER,... or *=NUMBER; 0: none.")
    ] = "",
    votes: Annotated[
        str | None, Option(help="Tasks, with commas, whose groups share evidence by votes; as before if left out.")
    ] = None,
    dual_url: Annotated[
        list[str] | None,
        Option(help="A frozen model plays the dual at this address (http://host:8000/v1); may be repeated."),
    ] = None,
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
    from cellduality_plugin.config import Config

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
