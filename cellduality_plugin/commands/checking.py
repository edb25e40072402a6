"""`cellduality check`: what would fail minutes into a run, found in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("check")(check)


def check(
    config: Annotated[Path, typer.Option(help="The configuration file of the prepared data.")],
    model: Annotated[str, typer.Option(help="The model the trainer starts from.")],
    max_len: Annotated[int, typer.Option(help="--data.max_len of the trainer.")],
    sft: Annotated[Path | None, typer.Option(help="SFT rows to check.")] = None,
    rl: Annotated[Path | None, typer.Option(help="RL rows to check, the dual counted.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="--rollout.max_new_tokens of the trainer.")] = 0,
    rollout_batch: Annotated[int, typer.Option(help="--rollout.batch_size of the trainer.")] = 0,
    group_size: Annotated[int, typer.Option(help="--rollout.n_samples_per_prompt of the trainer.")] = 0,
    train_batch: Annotated[int, typer.Option(help="--train.batch_size of the trainer.")] = 0,
    micro_batch: Annotated[int, typer.Option(help="--train.micro_batch_size of the trainer.")] = 0,
    devices: Annotated[int, typer.Option(help="Processes that share a training batch.")] = 1,
) -> None:
    """Find out in seconds what would otherwise fail minutes into a run.

    Example: `cellduality check --config data/cellduality.json --model sft --rl data/rl.jsonl --max-len 224
    --max-new-tokens 80`
    """
    from cellduality_plugin.config import Config
    from cellduality_plugin.openrlhf_hooks import preflight

    settings = Config.load(config)
    settings.load_vocabulary()
    settings.load_rewards(settings.load_tasks())
    if micro_batch:
        where = "SFT_BATCH" if rl is None else "TRAIN_BATCH"
        preflight.check_micro_batches(batch=train_batch, micro_batch=micro_batch, devices=devices, where=where)
    if rollout_batch:
        preflight.check_batches(rollout_batch=rollout_batch, group_size=group_size, train_batch=train_batch)
    tokenizer = preflight.load_tokenizer(model)
    preflight.check_context(model, max_len)
    if sft is not None:
        longest = preflight.check_sft(sft, tokenizer, max_len)
        print(f"{sft}: longest row {longest} of {max_len} tokens")
    if rl is not None:
        longest = preflight.check_rl(rl, settings, tokenizer, max_len=max_len, max_new_tokens=max_new_tokens)
        print(f"{rl}: longest sequence, dual counted, {longest} of {max_len} tokens")
