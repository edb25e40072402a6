"""What teachers said: candidate answers to questions, the file that every one is kept in, and both put together."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Value
from cellduality_plugin.files import AppendLog
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.traces.questions import Question, read_questions

Tokens: TypeAlias = NDArray[np.int64]
"""[Tokens of prompts, tokens of completions]."""
NO_TOKENS: Tokens = np.zeros(2, dtype=np.int64)
NO_TOKENS.setflags(write=False)


@dataclass(frozen=True)
class Reply:
    """What a teacher answered; its tokens are 0 where the teacher is a rule."""

    text: str  # <think>...</think><answer>...</answer> if the teacher kept to the form; untrusted
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish: str = "stop"  # why it ended, in the endpoint's words: "length", "content_filter"; empty if unknown

    @property
    def tokens(self) -> Tokens:
        return np.array([self.prompt_tokens, self.completion_tokens])


class Teacher:
    """Whoever answers questions with a reasoning trace. This one costs nothing and needs no connection."""

    name: str  # in rows: the model and its endpoint's host, or the rule
    version: str  # what its answers depend on besides the question: 12 hex digits of instructions, temperature, ...

    async def answer(self, question: Question, candidate: int) -> Reply:
        """Return candidate number ``candidate`` (from 0), or raise a PolicyError: a later run asks it again."""
        raise NotImplementedError

    def most(self, question: Question) -> Tokens:
        """Return the most tokens that one answer can take."""
        return NO_TOKENS

    def open(self, in_flight: int) -> None:
        """Be ready to be asked, and have at most so many requests in flight, however many answers are waited for."""

    async def close(self) -> None:
        """Close all connections."""


@dataclass(frozen=True)
class Candidate:
    """One line of the file of candidates: number ``candidate``, from 0, of what ``teacher`` answered to a question."""

    key: str  # of the question
    candidate: int
    prompt: str  # its :func:`prompt_hash`: a question that was prepared anew is asked anew
    teacher: str
    version: str
    reply: Reply


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
        found = {
            (each.key, each.candidate, each.prompt): each.reply.tokens
            for each in read_candidates(self.path)
            if (each.teacher, each.version) == (teacher.name, teacher.version)
        }
        return {*found}, sum(found.values(), NO_TOKENS)


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
    """A primal question and its dual, of which one may not be in the set, and all replies."""

    primal: Question | None = None
    dual: Question | None = None
    replies: dict[str, list[Candidate]] = field(default_factory=dict)  # by question, duals about other answers as well

    def replies_to(self, question: Question) -> list[Candidate]:
        """Return the candidates that answer ``question`` as it is worded now, by number."""
        prompt = prompt_hash(question.prompt)
        found = (candidate for candidate in self.replies.get(question.key, ()) if candidate.prompt == prompt)
        return sorted(found, key=lambda each: (each.candidate, each.teacher, each.version))


def read_instances(questions: Path, candidates: Path, tasks: Mapping[str, DualTask]) -> tuple[list[Instance], int]:
    """Return the instances of an SFT file, in its order, and how many candidates answer no question that it asks now.

    A CellDualityError is raised if a file is missing or malformed, or no candidate answers a question of the file.
    """
    instances: dict[str, Instance] = {}
    prompts: dict[str, str] = {}
    for question in read_questions(questions, tasks):
        setattr(instances.setdefault(instance_key(question.key), Instance()), question.direction, question)
        prompts[question.key] = prompt_hash(question.prompt)
    others = matched = 0
    for candidate in read_candidates(candidates):
        instance = instances.get(instance_key(candidate.key))
        if instance and prompts.get(candidate.key, candidate.prompt) == candidate.prompt:
            instance.replies.setdefault(candidate.key, []).append(candidate)
            matched += candidate.key in prompts
        else:
            others += 1
    if not matched:
        what = f"no candidate answers a question of {questions.name}, {others} are of another preparation"
        hint = f"ask with cellduality traces sample, or put the {questions.name} back that they were asked for"
        raise CellDualityError(what, code="other-preparation", where=str(candidates), hint=hint)
    return list(instances.values()), others


def some_questions(
    path: Path, tasks: Mapping[str, DualTask], limit: int | None, rng: np.random.Generator
) -> list[Question]:
    """Return questions of whole instances drawn at random, in the file's order; ``limit`` at most, None for all."""
    questions = list(read_questions(path, tasks))
    counts = Counter(instance_key(question.key) for question in questions)
    names, left = list(counts), len(questions) if limit is None else limit
    wanted = set()
    for place in rng.permutation(len(names)).tolist():
        if counts[names[place]] <= left:
            wanted.add(names[place])
            left -= counts[names[place]]
    return [question for question in questions if instance_key(question.key) in wanted]


def answers_read(instance: Instance, question: Question, vocabulary: Vocabulary) -> list[Value]:
    """Return the different answers that could be read in the replies to ``question``, right or wrong, in order."""
    read = (question.read(candidate.reply.text, vocabulary).value for candidate in instance.replies_to(question))
    return list(dict.fromkeys(value for value in read if value is not None))


def dual_questions(instances: Iterable[Instance], vocabulary: Vocabulary) -> Iterator[Question]:
    """Yield the dual question about each different answer that the primal question of an instance was given."""
    for instance in instances:
        if instance.primal is not None:
            answers = answers_read(instance, instance.primal, vocabulary)
            yield from (instance.primal.about(answer, vocabulary) for answer in answers)
