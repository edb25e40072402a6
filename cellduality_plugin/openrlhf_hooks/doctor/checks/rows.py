"""The rows, read as the trainer will read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.openrlhf_hooks import preflight
from cellduality_plugin.openrlhf_hooks.doctor.finding import Finding, error, note, told, warning
from cellduality_plugin.openrlhf_hooks.doctor.run import Run


def data_files(run: Run) -> Iterator[Finding]:
    """Rows that are not there.

    A comma parts several data sets and an @ begins a folder inside one, also where they are part of a name.
    """
    named = run.get(run.rows_flag[2:])
    if not named:
        yield error("no rows to train on", run.rows_flag, "pass the rows that cellduality data prepare wrote")
    for name in run.rows:
        if not Path(name).exists():
            if Path(name).is_absolute() or name.endswith((".jsonl", ".json")) or name.startswith("."):
                mend = "prepare the data first (bash recipes/prepare.sh)"
                if "," in str(named) or "@" in str(named):
                    mend += "; OpenRLHF parts a name at , and @"
                yield error("no such file", f"{run.rows_flag} {name}", mend)
            else:
                yield note("rows of the hub could not be checked", f"{run.rows_flag} {name}")


def keys(run: Run) -> Iterator[Finding]:
    """Rows read under other names than they have.

    Without `--data.label_key` every label is empty, and the agent has nothing to ask the dual about; without
    `--data.output_key` SFT takes the input for a list of turns.
    """
    if run.is_rl and not run.is_ours:
        return
    for name, wanted in (("input_key", "input"), ("label_key", "label") if run.is_rl else ("output_key", "output")):
        if run.get(f"data.{name}") != wanted:
            yield error(
                f"--data.{name} is {run.get(f'data.{name}')}, and rows call it {wanted!r}",
                f"--data.{name}",
                f"pass {wanted}",
            )


def model_folder(run: Run) -> Iterator[Finding]:
    """A model that is missing, incomplete, or has no tokenizer or chat template.

    Without a chat template neither the dual nor evaluation can frame a question.
    """
    if run.model is None:
        yield error("no model to start from", run.model_flag, "name a folder or a model of the hub")
    elif isinstance(run.tokenizer, CellDualityError):
        if run.model.is_local or "chat template" in run.tokenizer.what:
            yield told(run.tokenizer)
        else:
            yield note(
                f"{run.tokenizer.what}: lengths and chat template could not be checked",
                f"{run.model_flag} {run.model.name}",
                "download it first, or check the name and the network",
            )


def positions(run: Run) -> Iterator[Finding]:
    """A context longer than the model's positions.

    vLLM refuses to start with it, and the trainer computes nonsense beyond them.
    """
    if run.model is None or run.model.is_missing:
        return
    if run.model.positions is None:
        yield note("how many positions the model has could not be checked", run.model_flag)
    elif run.model.positions < run.get("data.max_len"):
        yield error(
            f"the model has {run.model.positions} positions, fewer than {run.get('data.max_len')}",
            "--data.max_len",
            "lower it (MAX_LEN)",
        )


def room_for_prompts(run: Run) -> Iterator[Finding]:
    """Responses that may be as long as the context.

    A prompt too long for what they leave is cut from the left, system turn first; where they leave nothing it is passed
    whole, and overflows the engine. Without a limit a response may leave its dual no room.
    """
    limit, context = run.get("rollout.max_new_tokens"), run.get("data.max_len")
    if limit is None:
        yield warning("responses have no limit", "--rollout.max_new_tokens", f"pass less than {context}")
    elif limit >= context:
        yield error(
            f"{limit} tokens of a response leave no room for a prompt in {context}",
            "--rollout.max_new_tokens",
            "lower it",
        )


def rl_rows(run: Run) -> Iterator[Finding]:
    """A row whose prompt, dual or both responses do not fit, whose task is unknown, or that its reward cannot judge.

    An overlong prompt is cut in silence, and an overlong dual counts as failed.
    """
    if not isinstance(run.config, Config) or _no_tokenizer(run):
        return
    limit = run.get("rollout.max_new_tokens") or 0
    for path in run.row_files:
        try:
            preflight.check_rl(path, run.config, run.tokenizer, max_len=run.get("data.max_len"), max_new_tokens=limit)
        except CellDualityError as failure:
            yield told(failure)


def sft_rows(run: Run) -> Iterator[Finding]:
    """An SFT row that is malformed or does not fit.

    Rows whose prompt does not fit are dropped in silence; of others the end is cut, and the last token overwritten.
    """
    if _no_tokenizer(run):
        return
    for path in run.row_files:
        try:
            preflight.check_sft(path, run.tokenizer, run.get("data.max_len"))
        except CellDualityError as failure:
            yield told(failure)


def _no_tokenizer(run: Run) -> bool:
    return run.tokenizer is None or isinstance(run.tokenizer, CellDualityError)
