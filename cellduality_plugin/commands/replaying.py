"""`cellduality replay`: recorded rollouts under another reward, without a GPU."""

from __future__ import annotations

import collections
import itertools
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from cellduality_plugin.commands.arguments import pairs, reward_of, wide_console
from cellduality_plugin.files import write_jsonl


def replay(
    records: Annotated[list[Path], typer.Argument(help="Files of recorded rollouts, or folders of them.")],
    rewards: Annotated[
        str, typer.Option(help="Rewards to score by, task=KIND,... as in `data prepare`; others as configured.")
    ] = "",
    config: Annotated[
        Path | None, typer.Option(help="The run's cellduality.json; the one CELLDUALITY_CONFIG names by default.")
    ] = None,
    result: Annotated[
        Path | None, typer.Option("--out", help="Write the reward of every rollout, as JSON lines.")
    ] = None,
) -> None:
    """Score recorded rollouts by another reward: no model and no GPU, but only what was recorded can be asked.

    Mean and spread (the standard deviation within a group), the share of groups without any, and the correlation with
    the reward of then and, in rows with gold, with the truth.

    Example: `cellduality replay runs/cpu/rollouts --config runs/cpu/data/cellduality.json
    --rewards cell_type_annotation=duality-rbo`
    """
    from cellduality_plugin.config import Config
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
            print(
                f"{column.task}: {column.reward} asks what {column.missing} rollouts did not record, and they do not "
                f"count; record a run whose reward asks it, too: --rewards {column.task}=0.99*CONFIGURED+0.01*"
                f"{column.reward}"
            )
