"""Questions and candidates put together again, in memory that does not grow with the files."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeVar

import numpy as np

from cellduality_plugin.tasks import DualTask
from data_prep.traces.candidates import Candidate, prompt_hash, read_candidate, read_candidates
from data_prep.traces.questions import Direction, Question, read_question, read_questions

T = TypeVar("T")

_KEY = re.compile(r"(?P<task>.*?)/(?:primal|dual)/(?P<rest>.*?#\d+)(?:@[0-9a-f]{12})?", re.DOTALL)


def instance_key(key: str) -> str:
    """Return what the primal and the dual question of one cell, view and pair share, from the key of either.

    Examples
    --------
    >>> instance_key("annotation/dual/set/AAAC-1#0@0123456789ab") == instance_key("annotation/primal/set/AAAC-1#0")
    True
    """
    found = _KEY.fullmatch(key)
    return f"{found['task']}/{found['rest']}" if found else key


@dataclass
class Instance:
    """A primal question and its dual, of which one may not be in the set, and all replies by the key of their question.

    Among them are replies to duals about other answers than the right one.
    """

    primal: Question | None = None
    dual: Question | None = None
    replies: dict[str, list[Candidate]] = field(default_factory=dict)

    def questions(self, directions: Iterable[Direction] = ("primal", "dual")) -> list[Question]:
        """Return the questions of the set, the primal first."""
        return [question for question in (self.primal, self.dual) if question and question.direction in directions]

    def replies_to(self, question: Question) -> list[Candidate]:
        """Return the candidates that answer ``question`` as it is worded now, by number."""
        prompt = prompt_hash(question.prompt)
        found = (candidate for candidate in self.replies.get(question.key, ()) if candidate.prompt == prompt)
        return sorted(found, key=lambda candidate: candidate.order)


@dataclass
class Instances:
    """The instances of an SFT file and its candidates, in the order of the questions; one is held at a time.

    Attributes
    ----------
    unknown
        How many candidates answer no question of the set, or one that was worded otherwise; known once read.
    matched
        How many answer one of it.
    """

    questions: Path
    candidates: Path
    tasks: Mapping[str, DualTask]
    unknown: int = field(default=0, init=False)
    matched: int = field(default=0, init=False)

    def __iter__(self) -> Iterator[Instance]:
        self.unknown = self.matched = 0
        prompts: dict[str, str] = {}
        asked: dict[str, list[int]] = {}
        for place, question in _placed(self.questions, read_questions(self.questions, self.tasks)):
            asked.setdefault(instance_key(question.key), []).append(place)
            prompts[question.key] = prompt_hash(question.prompt)
        answered: dict[str, list[int]] = {}
        for place, candidate in _placed(self.candidates, read_candidates(self.candidates)):
            home = instance_key(candidate.key)
            if home in asked and prompts.get(candidate.key, candidate.prompt) == candidate.prompt:
                answered.setdefault(home, []).append(place)
                self.matched += candidate.key in prompts
            else:
                self.unknown += 1
        with self.questions.open("rb") as questions, self.candidates.open("rb") as candidates:
            for home, places in asked.items():
                instance = Instance()
                for line in _lines_at(questions, places):
                    question = read_question(json.loads(line), self.tasks, str(self.questions))
                    setattr(instance, question.direction, question)
                for line in _lines_at(candidates, answered.get(home, ())):
                    candidate = read_candidate(line)
                    instance.replies.setdefault(candidate.key, []).append(candidate)
                yield instance


class SomeQuestions:
    """The questions of whole instances drawn at random, in the order of their file; they have a length.

    There are at most ``limit`` of them, None for all; a primal question and its dual come together or not at all.
    """

    def __init__(self, path: Path, tasks: Mapping[str, DualTask], limit: int | None, rng: np.random.Generator) -> None:
        self._path, self._tasks = path, tasks
        counts = Counter(instance_key(question.key) for question in read_questions(path, tasks))
        names, left = list(counts), sum(counts.values()) if limit is None else limit
        self._wanted: set[str] = set()
        for place in rng.permutation(len(names)).tolist():
            if counts[names[place]] <= left:
                self._wanted.add(names[place])
                left -= counts[names[place]]
        self._count = sum(counts[name] for name in self._wanted)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Question]:
        questions = read_questions(self._path, self._tasks)
        return (question for question in questions if instance_key(question.key) in self._wanted)


def _placed(path: Path, items: Iterable[T]) -> Iterator[tuple[int, T]]:
    """Yield (where its line begins, item) of the items that the lines of a file hold."""
    place = 0
    for item, line in zip(items, _lines(path), strict=False):
        yield place, item
        place += len(line)


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        yield from stream


def _lines_at(stream: IO[bytes], places: Iterable[int]) -> Iterator[bytes]:
    for place in places:
        stream.seek(place)
        yield stream.readline()
