"""What a checkpoint answers to the held-out rows, in both directions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation.decoding import Decoder, EngineSettings, Request
from cellduality_plugin.examples import Example, Value
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.parsing import Answer, Genes
from cellduality_plugin.tasks import TASKS, DualTask
from cellduality_plugin.vocabulary import Vocabulary

PROMPT_TOO_LONG = "prompt_too_long"

Rows: TypeAlias = Mapping[tuple[str, str], Example]
"""The examples of an evaluation file, by (task, row id)."""


@dataclass(frozen=True)
class PredictionSettings:
    """How held-out rows are answered.

    Parameters
    ----------
    samples
        Cells drawn for each generation row; a label is decoded once, greedily.
    temperature
        Of generated cells. Labels and all dual answers are greedy.
    seed
        From which every request's own seed follows.
    engine
        How the engine is built.
    """

    samples: int = 4
    temperature: float = 1.0
    seed: int = 0
    engine: EngineSettings = field(default_factory=EngineSettings)


@dataclass(frozen=True)
class Prediction:
    """One answer, and what the same checkpoint rebuilds from it.

    Parameters
    ----------
    id, task, sample
        The row, its dual pair, and which draw of the row this is.
    unknown, gold
        x_u and y* of the row; ``gold`` is None where the row has none.
    response, answer, failure
        The primal response, what the parser read in it, or why nothing could be read.
    listed, unknown_words, repeated
        The counts of :class:`cellduality_plugin.parsing.Answer`.
    dual_response, rebuilt, dual_failure
        The dual response, what was read in it, or why not; empty if the primal answer could not be read.
    similarity
        Of x_u and what was rebuilt, in [0, 1]; 0 if either direction failed. Best value 1.
    validity
        Well-formedness of the primal answer, in [0, 1]; the reward is ``similarity * validity``.
    """

    id: str
    task: str
    sample: int
    unknown: Value
    gold: Value | None
    response: str
    answer: Value | None
    failure: str
    listed: int = 0
    unknown_words: int = 0
    repeated: int = 0
    dual_response: str = ""
    rebuilt: Value | None = None
    dual_failure: str = ""
    similarity: float = 0.0
    validity: float = 0.0

    @property
    def reward(self) -> float:
        """The duality reward of this answer, in [0, 1]. Best value 1."""
        return self.similarity * self.validity

    def as_answer(self) -> Answer:
        """Return the parsed primal answer (without its trace)."""
        failure: Any = self.failure
        return Answer(self.answer, "", failure, self.listed, self.unknown_words, self.repeated)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Prediction:
        """Return the prediction in one row of a predictions file."""
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
        return cls(**values)


def read_rows(path: Path, tasks: Mapping[str, DualTask] = TASKS) -> Rows:
    """Return the examples of an evaluation file by (task, row id).

    Raises
    ------
    CellDualityError
        If a row has no label or is of a pair that is not in ``tasks``, or two rows of a task share an id.
    """
    examples: dict[tuple[str, str], Example] = {}
    for number, row in enumerate(read_jsonl(path), start=1):
        if "label" not in row:
            raise CellDualityError("row without label", where=f"{path}:{number}", mend="prepare the data again")
        example = Example.from_label(row["label"])
        if example.task not in tasks:
            raise CellDualityError(
                f"unknown dual pair {example.task!r}",
                where=f"{path}:{number}",
                mend=f"known are {', '.join(tasks)}; add it to the configuration",
            )
        key = (example.task, str(row.get("id", example.id)))
        if key in examples:
            raise CellDualityError(f"row id {key[1]!r} twice", where=f"{path}:{number}", mend="prepare the data again")
        examples[key] = example
    return examples


def predict(
    decoder: Decoder,
    examples: Mapping[tuple[str, str], Example],
    vocabulary: Vocabulary,
    settings: PredictionSettings,
    tasks: Mapping[str, DualTask] = TASKS,
) -> list[Prediction]:
    """Return the predictions of one checkpoint for all ``examples``, primal and dual.

    Prompts are rendered anew by the task, so that what is asked here is what the training rows ask.

    Parameters
    ----------
    decoder
        The checkpoint.
    examples
        By (task, row id), as :func:`read_rows` gives them.
    tasks
        The dual pairs by the name that rows give.
    """
    asked = [
        (key, sample)
        for key in examples
        for sample in range(settings.samples if isinstance(tasks[key[0]].answer, Genes) else 1)
    ]
    requests = [
        Request(
            tasks[key[0]].primal_prompt(examples[key].inputs, vocabulary),
            settings.temperature if isinstance(tasks[key[0]].answer, Genes) else 0.0,
            request_seed(settings.seed, *key, sample),
        )
        for key, sample in asked
    ]
    responses = decoder.generate(requests, "primal")
    primal = [
        _read_primal(tasks[key[0]], examples[key], key[1], sample, response, vocabulary)
        for (key, sample), response in zip(asked, responses, strict=True)
    ]
    return _add_duals(decoder, primal, examples, tasks, vocabulary, settings)


def _read_primal(
    task: DualTask, example: Example, row: str, sample: int, response: str | None, vocabulary: Vocabulary
) -> Prediction:
    blank = Prediction(row, example.task, sample, example.unknown, example.gold, "", None, PROMPT_TOO_LONG)
    if response is None:
        return blank
    answer = task.parse_answer(response, vocabulary)
    return replace(
        blank,
        response=response,
        answer=answer.value,
        failure=answer.failure,
        listed=answer.listed,
        unknown_words=answer.unknown,
        repeated=answer.repeated,
        validity=0.0 if answer.value is None else task.validity(example, answer),
    )


def _add_duals(
    decoder: Decoder,
    primal: Sequence[Prediction],
    examples: Mapping[tuple[str, str], Example],
    tasks: Mapping[str, DualTask],
    vocabulary: Vocabulary,
    settings: PredictionSettings,
) -> list[Prediction]:
    done = list(primal)
    answered = [(index, answer) for index, p in enumerate(primal) if (answer := p.answer) is not None]
    requests = []
    for index, answer in answered:
        p = primal[index]
        known = examples[p.task, p.id].known
        prompt = tasks[p.task].dual_prompt(known, answer, vocabulary)
        requests.append(Request(prompt, 0.0, request_seed(settings.seed, p.task, p.id, p.sample)))
    for (index, _), response in zip(answered, decoder.generate(requests, "dual"), strict=True):
        p = primal[index]
        if response is None:
            done[index] = replace(p, dual_failure=PROMPT_TOO_LONG)
            continue
        task = tasks[p.task]
        rebuilt = task.parse_rebuilt(response, vocabulary)
        value = rebuilt.value
        similarity = 0.0 if value is None else task.similarity(p.unknown, value)
        done[index] = replace(
            p, dual_response=response, rebuilt=value, dual_failure=rebuilt.failure, similarity=similarity
        )
    return done


def request_seed(*parts: object) -> int:
    """Return a 31-bit seed that depends on ``parts`` alone, not on the order of requests or the process.

    Examples
    --------
    >>> request_seed(0, "task", "cell", 1) == request_seed(0, "task", "cell", 1) != request_seed(0, "task", "cell", 2)
    True
    """
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:4], "big") >> 1
