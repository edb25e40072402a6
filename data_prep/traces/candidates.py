"""What teachers said: one candidate answer to one question, kept for ever."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from data_prep.traces.questions import Question


@dataclass(frozen=True)
class Reply:
    """What a teacher answered.

    Parameters
    ----------
    text
        The response, ``<think>...</think><answer>...</answer>`` if the teacher kept to the form; untrusted.
    prompt_tokens, completion_tokens
        What it cost; 0 where the teacher is a rule.
    finish
        Why it ended, in the endpoint's words: ``"stop"``, ``"length"``, ``"content_filter"``; empty if not told.
    """

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish: str = "stop"


class Teacher(Protocol):
    """Whoever answers questions with a reasoning trace."""

    @property
    def name(self) -> str:
        """How rows name it: the model and its endpoint's host, or the rule."""
        ...

    @property
    def version(self) -> str:
        """What its answers hang on besides the question: 12 hex digits of instructions, temperature and the like."""
        ...

    async def answer(self, question: Question, candidate: int) -> Reply:
        """Return candidate number ``candidate`` (from 0): the same numbers need not give the same text."""
        ...


@dataclass(frozen=True)
class Candidate:
    """One line of the file of candidates: a reply, and what it replies to.

    Parameters
    ----------
    key
        The question's :attr:`~data_prep.traces.questions.Question.key`.
    candidate
        Which one, from 0.
    prompt
        12 hex digits of the SHA-256 of the prompt: a question that was prepared anew is asked anew.
    teacher, version
        Who answered.
    reply
        What was answered.
    """

    key: str
    candidate: int
    prompt: str
    teacher: str
    version: str
    reply: Reply
