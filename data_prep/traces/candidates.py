"""What teachers said: candidate answers to questions, and the file that every one of them is kept in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.files import AppendLog
from data_prep.traces.questions import Question


@dataclass(frozen=True)
class Tokens:
    """Tokens of prompts and of completions; they add up.

    Examples
    --------
    >>> Tokens(1000, 200) + Tokens(500, 0), Tokens(1_000_000, 100_000).cost(2.5, 10)
    (Tokens(prompt=1500, completion=200), 3.5)
    """

    prompt: int = 0
    completion: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.prompt + other.prompt, self.completion + other.completion)

    def __sub__(self, other: Tokens) -> Tokens:
        return Tokens(self.prompt - other.prompt, self.completion - other.completion)

    @property
    def total(self) -> int:
        return self.prompt + self.completion

    def cost(self, price_in: float, price_out: float) -> float:
        """Return the price in US$, given the prices of a million prompt and completion tokens."""
        return (self.prompt * price_in + self.completion * price_out) / 1e6


@dataclass(frozen=True)
class Reply:
    """What a teacher answered; its tokens are 0 where the teacher is a rule."""

    text: str  # <think>...</think><answer>...</answer> if the teacher kept to the form; untrusted
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish: str = "stop"  # why it ended, in the endpoint's words: "length", "content_filter"; empty if unknown

    @property
    def tokens(self) -> Tokens:
        return Tokens(self.prompt_tokens, self.completion_tokens)


class Teacher:
    """Whoever answers questions with a reasoning trace. This one costs nothing and needs no connection."""

    name: str  # in rows: the model and its endpoint's host, or the rule
    version: str  # what its answers depend on besides the question: 12 hex digits of instructions, temperature, ...

    async def answer(self, question: Question, candidate: int) -> Reply:
        """Return candidate number ``candidate`` (from 0), or raise a PolicyError: a later run asks it again."""
        raise NotImplementedError

    def most(self, question: Question) -> Tokens:
        """Return the most tokens that one answer can take."""
        return Tokens()

    def open(self, in_flight: int) -> None:
        """Be ready to be asked, and have at most so many requests in flight, however many answers are waited for."""

    async def close(self) -> None:
        """Close all connections."""


@dataclass(frozen=True)
class Candidate:
    """One line of the file of candidates: number ``candidate``, from 0, of what ``teacher`` answered to a question.

    ``key`` is the question's :attr:`~.questions.Question.key`, ``prompt`` the :func:`prompt_hash` of its prompt: a
    question that was prepared anew is asked anew.
    """

    key: str
    candidate: int
    prompt: str
    teacher: str
    version: str
    reply: Reply

    @property
    def order(self) -> tuple[int, str, str]:
        """Sorts the candidates of a question."""
        return self.candidate, self.teacher, self.version


_LINE = TypeAdapter(Candidate)


def prompt_hash(prompt: str) -> str:
    """Return the 12 hex digits under which candidates name a prompt."""
    return hashlib.sha256(prompt.encode("utf-8", "replace")).hexdigest()[:12]


class CandidateLog(AppendLog):
    """The file of candidates: every raw reply, one a line, written once and never changed."""

    def add(self, candidate: Candidate) -> None:
        content = {**vars(candidate), "reply": vars(candidate.reply)}
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        self.append(text.encode("utf-8", "replace"))  # lone surrogates, which no reader takes, become "?"

    def done(self, teacher: Teacher) -> tuple[set[tuple[str, int, str]], Tokens]:
        """Return ({(key, number, prompt hash)}, what they cost) of this teacher in its present version."""
        found: set[tuple[str, int, str]] = set()
        tokens = Tokens()
        for candidate in read_candidates(self.path):
            name = candidate.key, candidate.candidate, candidate.prompt
            if (candidate.teacher, candidate.version) == (teacher.name, teacher.version) and name not in found:
                found.add(name)
                tokens += candidate.reply.tokens
        return found, tokens


def read_candidates(path: Path) -> Iterator[Candidate]:
    """Yield the candidates of a file in their order, without a torn last line; a CellDualityError names another."""
    try:
        with Path(path).open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                try:
                    yield _LINE.validate_json(line, strict=True)
                except ValidationError:
                    if line.endswith(b"\n"):
                        where, hint = f"{path}:{number}", "remove that line; it will be asked again"
                        raise CellDualityError("not a candidate", code="malformed", where=where, hint=hint) from None
    except OSError as error:
        what, hint = f"cannot read: {error.strerror or error}", "ask a teacher first (cellduality traces sample)"
        raise CellDualityError(what, code="unreadable-file", where=str(path), hint=hint) from error
