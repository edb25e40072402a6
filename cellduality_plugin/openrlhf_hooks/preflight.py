"""What can be known of rows and model before Ray starts: the tokenizer, and lengths with the dual counted."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cellduality_plugin.config import Config, TaskSettings
from cellduality_plugin.duals import held_against
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example, Value
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.hub import looks_local, read_tokenizer
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.rewards import Reward
from cellduality_plugin.tasks.base import DualTask, LabelTask
from cellduality_plugin.vocabulary import Vocabulary

_AGAIN = "prepare the data again (bash recipes/prepare.sh)"


def load_tokenizer(model: str, chat_template: str | None = None) -> Any:
    """Return the tokenizer of ``model``, a whole folder or a hub name, with its own chat template or the one given."""
    folder = Path(model)
    if looks_local(model) and not (folder / "config.json").is_file():
        what = "the model folder has no config.json" if folder.exists() else "no model there"
        hint = "run the stage that makes it (bash recipes/grpo_duality.sh runs all), or name a model of the hub"
        raise CellDualityError(what, code="no-model", where=model, hint=hint)
    if looks_local(model) and not [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]:
        what, hint = "the model folder has no weights", "make or download the model again"
        raise CellDualityError(what, code="no-weights", where=model, hint=hint)
    return read_tokenizer(model, chat_template)


class Lengths:
    """Counts tokens as the trainer will: prompts framed by the chat template, responses with their end token.

    Without a tokenizer a token has so many ``characters``, and nothing is framed.
    """

    def __init__(self, tokenizer: Any, characters: float = 2.0) -> None:
        self._tokenizer, self._characters = tokenizer, characters

    def prompts(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of user turns, each ready for the answer."""
        if self._tokenizer is None:
            return self._count(list(texts))
        chats = [[{"role": "user", "content": text}] for text in texts]
        return self._count(self._tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True))

    def responses(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of responses, each with the token that ends it; equal ones are counted once."""
        different = list(dict.fromkeys(texts))
        counts = dict(zip(different, self._count(different), strict=True))
        return [counts[text] + 1 for text in texts]

    def _count(self, texts: list[str]) -> list[int]:
        if self._tokenizer is None:
            return [math.ceil(len(text) / self._characters) for text in texts]
        tokens = self._tokenizer(text=texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        return [len(each) for each in tokens]


class Question(NamedTuple):
    """A prompt and the longest of some responses, and other tokens, which have to fit together."""

    what: str
    where: str
    prompt: str
    responses: tuple[str, ...] = ()
    more: int = 0  # for a response of which only the greatest length is known, or a generated list inside the prompt
    task: str = ""  # the dual pair of an RL row

    @property
    def is_dual(self) -> bool:
        """Return whether a reward asks it."""
        return bool(self.task and self.responses)


Measured = tuple[Question, int, list[int]]
"""A question with the tokens of its prompt and of its responses."""


def sft_questions(path: Path, lengths: Lengths) -> Iterator[Measured]:
    """Yield what SFT is shown, in the order of the rows; a CellDualityError names the line of one that is malformed."""
    needs = (Question("SFT row", where, row["input"], (row["output"],)) for where, row in rows(path, "SFT", "output"))
    return _measured(needs, lengths)


def rl_questions(path: Path, config: Config, lengths: Lengths, max_new_tokens: int) -> Iterator[Measured]:
    """Yield what the policy is asked about each RL row: the question, then what its reward asks.

    A CellDualityError names the line of a row that is malformed, of no known task, or without what its reward needs.
    """
    return _measured(_rl_needs(path, config, lengths, max_new_tokens), lengths)


def rows(path: Path, stage: str, second: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each row with its place."""
    for number, row in enumerate(read_jsonl(path), start=1):
        where = f"{path}:{number}"
        if not isinstance(row.get("input"), str) or not isinstance(row.get(second), str):
            what = f"malformed {stage} row: needs the texts 'input' and {second!r}"
            raise CellDualityError(what, code="malformed-row", where=where, hint=_AGAIN)
        yield where, row


def asked_about(
    task: DualTask, reward: Reward, settings: TaskSettings, vocabulary: Vocabulary, group: int
) -> tuple[int, str]:
    """Return how many answers or labels a group of so many rollouts has the dual asked about, at most, and which."""
    if not isinstance(task.answer, OneOf):
        return group, "answers"
    labels = len(vocabulary.labels[task.answer.kind])
    if isinstance(task.unknown, OneOf) or not reward.asks_every_label:
        return min(labels, group), "answers"
    rivals = held_against(vocabulary, task.answer.kind, settings.negatives) or labels
    return min(labels, rivals + group), "labels"


def _measured(questions: Iterator[Question], lengths: Lengths) -> Iterator[Measured]:
    while chunk := list(itertools.islice(questions, 512)):
        counts = iter(lengths.responses([text for each in chunk for text in each.responses]))
        for each, prompt in zip(chunk, lengths.prompts([each.prompt for each in chunk]), strict=True):
            yield each, prompt, [next(counts) for _ in each.responses]


def longest_of(questions: Iterator[Measured], max_len: int, path: Path) -> int:
    """Return the most tokens that one of the ``questions`` of a file takes; the first that does not fit is an error."""
    longest = 0
    for each, prompt, responses in questions:
        tokens = prompt + max(responses, default=0) + each.more
        if tokens > max_len:
            what = f"{each.what} needs {tokens} tokens, more than max_len {max_len}"
            hint = "raise --data.max_len (MAX_LEN), or lower --rollout.max_new_tokens (MAX_NEW_TOKENS) or TOP_GENES"
            raise CellDualityError(what, code="too-long", where=each.where, hint=hint)
        longest = max(longest, tokens)
    if not longest:
        raise CellDualityError("no rows", code="no-rows", where=str(path), hint=_AGAIN)
    return longest


def _rl_needs(path: Path, config: Config, lengths: Lengths, max_new_tokens: int) -> Iterator[Question]:
    vocabulary, tasks = config.load_vocabulary(), config.load_tasks()
    rewards = config.load_rewards(tasks)
    longest_labels: dict[str, str] = {}
    for where, row in rows(path, "RL", "label"):
        try:
            example = Example.from_label(row["label"])
        except CellDualityError as error:
            raise CellDualityError(error.what, code=error.code, where=where, hint=_AGAIN) from error
        if example.task not in tasks:
            what = f"row of the unknown task {example.task!r}"
            raise CellDualityError(what, code="unknown-task", where=where, hint=_AGAIN)
        task, reward = tasks[example.task], rewards[example.task]
        example = config.split(task, example)
        try:
            reward.check_row(task, example, vocabulary)
        except CellDualityError as error:
            raise CellDualityError(error.what, code=error.code, where=where, hint=error.hint) from error
        yield Question("prompt with its response", where, row["input"], more=max_new_tokens, task=task.name)
        answer: Value = ()
        if isinstance(task.answer, OneOf):  # which label makes the longest question does not depend on the row
            if task.name not in longest_labels:
                labels = vocabulary.longest(task.answer.kind)
                counts = lengths.prompts([task.dual_prompt(example.known, label, vocabulary) for label in labels])
                longest_labels[task.name] = max(zip(counts, labels, strict=True))[1]
            answer = longest_labels[task.name]
        # A generated list can be as long as the response that holds it, and reasoning as long as it may be.
        more = 0 if answer else max_new_tokens
        more += (config.dual.max_new_tokens or 0) if config.tasks[task.name].traces else 0
        for split in example.splits():
            rebuilt = [split.unknown]
            if reward.asks_every_label and isinstance(task.unknown, OneOf):
                rebuilt += vocabulary.longest(task.unknown.kind)
            prompt = task.dual_prompt(split.known, answer, vocabulary)
            responses = tuple(map(task.rebuilt_response, rebuilt))
            yield Question("dual prompt with its response", where, prompt, responses, more, task.name)
        if reward.asks_again and isinstance(task, LabelTask):
            whole = task.primal_prompt({**example.inputs, "cell": task.whole(example)}, vocabulary)
            responses = tuple(map(task.answer_response, vocabulary.longest(task.answer.kind)))
            yield Question("question about the whole cell", where, whole, responses, task=task.name)
