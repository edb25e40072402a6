"""What a teacher is asked: the primal and dual questions of the labelled training cells, with their gold answers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example, Value
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.parsing import Answer, Field
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.vocabulary import Vocabulary

Direction: TypeAlias = Literal["primal", "dual"]
COLUMNS = ("input", "output", "direction", "datasource", "id", "view", "label")
"""What a row of ``sft.jsonl`` holds."""


@dataclass(frozen=True)
class Question:
    """One prompt of the SFT set, word for word as the student will see it, and where it comes from."""

    pair: DualTask
    direction: Direction
    example: Example  # the row it was made from; ``gold`` is known
    view: int  # which version of the cell: 0 is the cell as it was measured
    answer: Value  # the primal answer: what a primal question asks for, and what a dual question shows
    prompt: str

    @classmethod
    def of(
        cls, pair: DualTask, direction: Direction, example: Example, view: int, answer: Value, vocabulary: Vocabulary
    ) -> Question:
        """Return the question that ``pair`` asks in that direction."""
        if direction == "primal":
            return cls(pair, direction, example, view, answer, pair.primal_prompt(example.inputs, vocabulary))
        return cls(pair, direction, example, view, answer, pair.dual_prompt(example.known, answer, vocabulary))

    @property
    def key(self) -> str:
        """The name of this question, which no other of a preparation has."""
        key = f"{self.group}/{self.example.id}#{self.view}"
        if self.answer == self.example.gold:
            return key
        # asked about another answer than the right one
        return f"{key}@{hashlib.sha256(self.pair.answer.render(self.answer).encode()).hexdigest()[:12]}"

    @property
    def group(self) -> str:
        """Its ``"task/direction"``."""
        return f"{self.pair.name}/{self.direction}"

    @property
    def field(self) -> Field:
        """What kind of thing is asked for."""
        return self.pair.answer if self.direction == "primal" else self.pair.unknown

    @property
    def gold(self) -> Value:
        """The right answer: y* of a primal question, x_u of a dual one."""
        return self.answer if self.direction == "primal" else self.example.unknown

    def read(self, text: str, vocabulary: Vocabulary) -> Answer:
        """Return the answer in a response. Never raises on any text."""
        read = self.pair.parse_answer if self.direction == "primal" else self.pair.parse_rebuilt
        return read(text, vocabulary)

    def response(self, value: Value, trace: str = "") -> str:
        """Return the response that answers ``value`` after ``trace``."""
        written = self.pair.answer_response if self.direction == "primal" else self.pair.rebuilt_response
        return written(value, trace)

    def about(self, answer: Value, vocabulary: Vocabulary) -> Question:
        """Return the dual question about ``answer`` in place of the right one."""
        return Question.of(self.pair, "dual", self.example, self.view, answer, vocabulary)

    def row(self, response: str) -> dict[str, str]:
        """Return the row of the SFT set with that response: :data:`COLUMNS`."""
        whence = (self.pair.name, self.example.id, str(self.view), self.example.to_label())
        return dict(zip(COLUMNS, (self.prompt, response, self.direction, *whence), strict=True))


def read_questions(path: Path, tasks: Mapping[str, DualTask]) -> Iterator[Question]:
    """Yield the questions of an SFT file, in its order; ``tasks`` are the dual pairs by the name that rows give.

    A CellDualityError is raised if the file is missing, or a row has no gold answer or is of an unknown pair.
    """
    for number, row in enumerate(read_jsonl(path), start=1):
        where, hint = f"{path}:{number}", "prepare the data again"
        if not {"input", "label", "direction", "view"} <= row.keys() or row["direction"] not in get_args(Direction):
            raise CellDualityError("not a row of an SFT file", code="malformed", where=where, hint=hint)
        example = Example.from_label(row["label"])
        if example.task not in tasks:
            what, hint = f"unknown dual pair {example.task!r}", f"known are {', '.join(tasks)}"
            raise CellDualityError(what, code="unknown-task", where=where, hint=hint)
        if example.gold is None:
            raise CellDualityError("row without a gold answer", code="no-gold", where=where, hint=hint)
        pair, view = tasks[example.task], int(row["view"])
        yield Question(pair, row["direction"], example, view, example.gold, str(row["input"]))
