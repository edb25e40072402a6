"""Questions and candidates put together again, in memory that does not grow with the files."""

from __future__ import annotations

import contextlib
import pickle
import re
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.tasks import DualTask
from data_prep.traces.candidates import Candidate, prompt_hash, read_candidates
from data_prep.traces.questions import Direction, Question, read_questions

PART_BYTES = 32 * 2**20
"""How much of both files is held at a time, as they are on the disk; in memory it is several times that."""

MAX_PARTS = 256

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
    """A primal question and its dual, and all that was answered to them and to duals about other answers.

    Parameters
    ----------
    primal, dual
        The questions; one of them may not be in the set.
    replies
        Candidates by the key of their question.
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
    """The instances of two files, in an order that hangs on the questions and the size of the files alone.

    Parameters
    ----------
    questions
        ``sft.jsonl`` of a preparation.
    candidates
        What teachers answered.
    tasks
        The dual pairs by name.
    part_bytes
        Files that are larger together are taken apart on the disk, beside ``candidates``, and read part by part.

    Attributes
    ----------
    unknown
        How many candidates answer no question of the set, or one that was worded otherwise; known at the end.
    matched
        How many answer one of it.
    """

    questions: Path
    candidates: Path
    tasks: Mapping[str, DualTask]
    part_bytes: int = PART_BYTES
    unknown: int = field(default=0, init=False)
    matched: int = field(default=0, init=False)

    def __iter__(self) -> Iterator[Instance]:
        self.unknown = self.matched = 0
        size = _size(self.questions, "prepare the data first (cellduality data prepare)")
        size += _size(self.candidates, "ask a teacher first (cellduality traces sample)")
        parts = min(MAX_PARTS, 1 + size // self.part_bytes)
        if parts == 1:
            yield from self._joined(read_questions(self.questions, self.tasks), read_candidates(self.candidates))
            return
        try:
            with tempfile.TemporaryDirectory(dir=self.candidates.parent, prefix=".parts.") as name:
                folder = Path(name)
                self._take_apart(folder, parts)
                for part in range(parts):
                    questions = read_questions(folder / f"questions-{part}", self.tasks)
                    yield from self._joined(questions, _unpacked(folder / f"candidates-{part}"))
        except OSError as error:
            what, mend = f"cannot write: {error.strerror or error}", "free some space: the files are sorted on the disk"
            raise CellDualityError(what, where=str(self.candidates.parent), mend=mend) from error

    def _joined(self, questions: Iterable[Question], candidates: Iterable[Candidate]) -> Iterator[Instance]:
        found: dict[str, Instance] = {}
        prompts: dict[str, str] = {}
        for question in questions:
            instance = found.setdefault(instance_key(question.key), Instance())
            setattr(instance, question.direction, question)
            prompts[question.key] = prompt_hash(question.prompt)
        for candidate in candidates:
            home = found.get(instance_key(candidate.key))
            if home is None or prompts.get(candidate.key, candidate.prompt) != candidate.prompt:
                self.unknown += 1
                continue
            self.matched += candidate.key in prompts
            home.replies.setdefault(candidate.key, []).append(candidate)
        yield from found.values()

    def _take_apart(self, folder: Path, parts: int) -> None:
        with _files(folder, "questions", parts) as part_of, self.questions.open("rb") as lines:
            for line, question in zip(lines, read_questions(self.questions, self.tasks), strict=True):
                part_of(question.key).write(line.rstrip(b"\n") + b"\n")
        with _files(folder, "candidates", parts) as part_of:
            for candidate in read_candidates(self.candidates):
                pickle.dump(candidate, part_of(candidate.key))


class SomeQuestions:
    """The questions of whole instances drawn at random, in the order of their file; they have a length.

    Parameters
    ----------
    path
        ``sft.jsonl`` of a preparation.
    tasks
        The dual pairs by name.
    limit
        How many questions at most; a primal question and its dual come together or not at all. None: all.
    rng
        The only source of randomness.
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


@contextlib.contextmanager
def _files(folder: Path, name: str, parts: int) -> Iterator[Callable[[str], IO[bytes]]]:
    """Yield a function from a question's key to the file of its instance's part."""
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context((folder / f"{name}-{part}").open("wb")) for part in range(parts)]
        yield lambda key: files[zlib.crc32(instance_key(key).encode()) % parts]


def _unpacked(path: Path) -> Iterator[Candidate]:
    """Yield what this process itself has put into ``path``."""
    with path.open("rb") as stream, contextlib.suppress(EOFError):
        while True:
            yield pickle.load(stream)


def _size(path: Path, mend: str) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        raise CellDualityError("no such file", where=str(path), mend=mend) from None
