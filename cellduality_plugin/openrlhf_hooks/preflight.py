"""What can be known to go wrong before Ray starts: the model folder, batch sizes, lengths with the dual counted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cellduality_plugin.config import Config
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.framing import render
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.rewards import Reward
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.vocabulary import Vocabulary


def load_tokenizer(model: str) -> Any:
    """Return the tokenizer of ``model``, a folder or a hub name.

    Raises
    ------
    CellDualityError
        If a local folder is missing or incomplete, or the tokenizer has no chat template.
    """
    folder = Path(model)
    looks_local = folder.is_absolute() or model.startswith(".") or folder.exists()
    if looks_local and not (folder / "config.json").is_file():
        raise CellDualityError(
            "no model there" if not folder.exists() else "the model folder has no config.json",
            where=model,
            mend="run the stage that makes it (bash recipes/grpo_duality.sh runs all), or name a model of the hub",
        )
    if looks_local and not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
        raise CellDualityError("the model folder has no weights", where=model, mend="make or download the model again")
    return read_tokenizer(model)


def read_tokenizer(model: str) -> Any:
    """Return the tokenizer at ``model``, a folder that may hold nothing else, or a hub name.

    Raises
    ------
    CellDualityError
        If there is none, or it has no chat template.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError, KeyError, TypeError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CellDualityError(
            f"cannot load the tokenizer: {first}", where=model, mend="check the name and the network"
        ) from error
    if not tokenizer.chat_template:
        raise CellDualityError(
            "the model has no chat template",
            where=model,
            mend="start from an instruction-tuned model, or add a chat_template to its tokenizer",
        )
    return tokenizer


class Lengths:
    """Counts tokens as the trainer will: prompts framed by the chat template, responses with their end token."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def prompt(self, text: str) -> int:
        """Return the tokens of a user turn, ready for the answer."""
        return len(render(self._tokenizer, text))

    def response(self, text: str) -> int:
        """Return the tokens of a response and the token that ends it."""
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"]) + 1


def check_sft(path: Path, tokenizer: Any, max_len: int) -> int:
    """Return the longest SFT row in tokens; a longer one than ``max_len`` would be cut in silence by the trainer.

    Raises
    ------
    CellDualityError
        If a row lacks a field or does not fit; its line is named.
    """
    lengths, longest = Lengths(tokenizer), 0
    for number, row in enumerate(read_jsonl(path), start=1):
        if not isinstance(row.get("input"), str) or not isinstance(row.get("output"), str):
            raise CellDualityError(
                "malformed SFT row: needs the texts 'input' and 'output'", where=f"{path}:{number}", mend=_AGAIN
            )
        longest = max(longest, lengths.prompt(row["input"]) + lengths.response(row["output"]))
        _must_fit(longest, max_len, "SFT row", f"{path}:{number}")
    return _some_rows(longest, path)


def check_rl(path: Path, config: Config, tokenizer: Any, *, max_len: int, max_new_tokens: int) -> int:
    """Return the longest sequence any RL row can need, in tokens: primal and dual, each with its response.

    Raises
    ------
    CellDualityError
        If a row is malformed, names an unknown task, lacks what its reward needs, or does not fit; its line is named.
    """
    lengths, longest = Lengths(tokenizer), 0
    vocabulary, tasks = config.load_vocabulary(), config.load_tasks()
    rewards = config.load_rewards(tasks)
    for number, row in enumerate(read_jsonl(path), start=1):
        where = f"{path}:{number}"
        if not isinstance(row.get("input"), str) or not isinstance(row.get("label"), str):
            raise CellDualityError("malformed RL row: needs the texts 'input' and 'label'", where=where, mend=_AGAIN)
        try:
            example = Example.from_label(row["label"])
        except CellDualityError as error:
            raise CellDualityError(error.what, where=where, mend=_AGAIN) from error
        if example.task not in tasks:
            raise CellDualityError(f"row of the unknown task {example.task!r}", where=where, mend=_AGAIN)
        task, reward = tasks[example.task], rewards[example.task]
        try:
            reward.check_row(task, example, vocabulary)
        except CellDualityError as error:
            raise CellDualityError(error.what, where=where, mend=error.mend) from error
        primal = lengths.prompt(row["input"]) + max_new_tokens
        _must_fit(primal, max_len, "prompt with its response", where)
        rebuilt = max(map(lengths.response, _rebuilt_responses(task, example, vocabulary, reward)))
        for dual in _dual_lengths(task, example, vocabulary, lengths, max_new_tokens, rebuilt):
            _must_fit(dual, max_len, "dual prompt with its response", where)
            longest = max(longest, dual)
        longest = max(longest, primal)
    return _some_rows(longest, path)


def _some_rows(longest: int, path: Path) -> int:
    if not longest:
        raise CellDualityError("no rows", where=str(path), mend=_AGAIN)
    return longest


def _rebuilt_responses(task: DualTask, example: Example, vocabulary: Vocabulary, reward: Reward) -> list[str]:
    """Return the responses to the dual that have to fit: the right one, and all the labels a reward asks about."""
    values = [example.unknown]
    if reward.asks_every_label and isinstance(task.unknown, OneOf):
        values += vocabulary.labels[task.unknown.kind]
    return [task.rebuilt_response(value) for value in values]


def _dual_lengths(
    task: DualTask, example: Example, vocabulary: Vocabulary, lengths: Lengths, max_new_tokens: int, rebuilt: int
) -> Iterator[int]:
    if isinstance(task.answer, OneOf):
        for label in vocabulary.labels[task.answer.kind]:
            yield lengths.prompt(task.dual_prompt(example.known, label, vocabulary)) + rebuilt
    else:  # a generated list can be as long as the response that holds it
        yield lengths.prompt(task.dual_prompt(example.known, (), vocabulary)) + max_new_tokens + rebuilt


def check_batches(*, rollout_batch: int, group_size: int, train_batch: int) -> None:
    """Return nothing if the batch sizes go into one another; uneven ones starve ranks and can hang the trainer.

    Raises
    ------
    CellDualityError
        If a group has one member, or rollouts do not fill whole training batches.
    """
    if group_size < 2:
        raise CellDualityError(
            f"a group of {group_size} has no spread to learn from", where="GROUP_SIZE", mend="set 2 or more"
        )
    for name, size in (("ROLLOUT_BATCH", rollout_batch), ("TRAIN_BATCH", train_batch)):
        if size < 1:
            raise CellDualityError(f"a batch of {size}", where=name, mend="set 1 or more")
    if (rollout_batch * group_size) % train_batch:
        raise CellDualityError(
            f"{rollout_batch} prompts x {group_size} samples do not fill whole training batches of {train_batch}",
            where="TRAIN_BATCH",
            mend="make ROLLOUT_BATCH x GROUP_SIZE a multiple of it",
        )


def check_micro_batches(*, batch: int, micro_batch: int, devices: int, where: str) -> None:
    """Return nothing if every device gets whole micro-batches of a training batch, as DeepSpeed demands.

    Raises
    ------
    CellDualityError
        If ``batch`` is not a multiple of ``micro_batch`` x ``devices``.
    """
    if micro_batch < 1 or devices < 1 or batch % (micro_batch * devices):
        raise CellDualityError(
            f"a batch of {batch} does not part into micro-batches of {micro_batch} on {devices} devices",
            where=where,
            mend="make it a multiple of micro-batch x devices",
        )


def check_folder(model: str) -> dict[str, Any]:
    """Return the ``config.json`` of a local model folder, or an empty mapping for a model of the hub."""
    path = Path(model) / "config.json"
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise CellDualityError(
            f"unreadable model config: {error}", where=str(path), mend="make the model again"
        ) from error


def check_context(model: str, max_len: int) -> None:
    """Return nothing if the model's positions reach ``max_len``.

    Raises
    ------
    CellDualityError
        If they do not.
    """
    positions = check_folder(model).get("max_position_embeddings", max_len)
    if positions < max_len:
        raise CellDualityError(
            f"the model has {positions} positions, fewer than {max_len}", where="MAX_LEN", mend="lower it"
        )


def _must_fit(tokens: int, max_len: int, what: str, where: str) -> None:
    if tokens > max_len:
        raise CellDualityError(
            f"{what} needs {tokens} tokens, more than max_len {max_len}",
            where=where,
            mend="raise MAX_LEN, or lower TOP_GENES or MAX_NEW_TOKENS",
        )


_AGAIN = "prepare the data again (bash recipes/prepare.sh)"
