"""From a model's text to a typed answer: the information bottleneck between primal and dual.

Only the parsed answer (one label of a closed set, or genes of the vocabulary) crosses to the other direction. The
reasoning trace and anything else in the text stay behind, so that a policy cannot whisper to itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from cellduality_plugin.examples import Value
from cellduality_plugin.vocabulary import Vocabulary

MAX_CHARACTERS = 65_536  # a longer response is not read at all: model output is untrusted and its length bounded
MAX_GENES = 4_096  # genes read from one answer; the rest of an endless list is cut

Failure = Literal["", "too_long", "no_answer", "unclosed", "ambiguous", "empty", "unknown_label"]

_ANY_TAG = re.compile(r"<[^<>\s]{1,64}>")
_TAG = re.compile(r"</?(?:think|answer)>")


@dataclass(frozen=True)
class Response:
    """A response taken apart: reasoning trace z, the text of the final answer a, or why there is none."""

    trace: str
    answer: str
    failure: Failure = ""


@dataclass(frozen=True)
class Answer:
    """The typed result of reading a response."""

    # The label, or the genes in order without repeats; None if ``failure`` says why nothing could be read.
    value: Value | None
    trace: str = ""
    failure: Failure = ""
    listed: int = 0  # words in an answer that is a list of genes
    unknown: int = 0  # of them, no gene of the vocabulary
    repeated: int = 0  # of them, came before


def split_response(text: str) -> Response:
    """Return the parts of ``<think>...</think><answer>...</answer>``; the trace may be missing. Never raises.

    The tags must come in that order, once each, with nothing but white space outside them. A trace that only ends was
    opened by the chat template.
    """
    if len(text) > MAX_CHARACTERS:
        return Response("", "", "too_long")
    tags = [match.group() for match in _TAG.finditer(text)]
    parts = _TAG.split(text)
    trace = ""
    if tags[:1] == ["</think>"]:
        tags, parts = ["<think>", *tags], ["", *parts]
    if tags[:2] == ["<think>", "</think>"]:
        trace, tags, parts = parts[1].strip(), tags[2:], [parts[0] + parts[2], *parts[3:]]
    if "<answer>" not in tags:
        return Response(trace, "", "no_answer")
    if tags == ["<answer>"]:
        return Response(trace, "", "unclosed")
    if tags != ["<answer>", "</answer>"] or parts[0].strip() or parts[2].strip():
        return Response(trace, "", "ambiguous")
    answer = parts[1].strip()
    return Response(trace, answer) if answer else Response(trace, "", "empty")


def read_trace(text: str) -> str:
    """Return the reasoning before the answer of ``text``, empty if there is none that ends. Never raises.

    It goes back into a response, so whatever looks like a tag is left out of it.

    Examples
    --------
    >>> read_trace("<think>CD19 is high.</think> <answer>B"), read_trace("<think>and on and on")
    ('CD19 is high.', '')
    >>> read_trace("<think>It is <<b>answer>B</think><answer>T")
    'It is < answer>B'
    """
    trace, ends, _ = text[:MAX_CHARACTERS].partition("<answer>")
    if not ends:
        trace, ends, _ = trace.partition("</think>")
    return _ANY_TAG.sub(" ", trace).strip() if ends else ""


def join_response(answer: str, trace: str = "") -> str:
    """Return the text that :func:`split_response` takes apart."""
    return f"<think>{trace}</think><answer>{answer}</answer>"


class Field(Protocol):
    """What kind of thing an answer is: how it is written and how it is read."""

    def render(self, value: Value) -> str: ...

    def parse(self, text: str, vocabulary: Vocabulary) -> Answer: ...


@dataclass(frozen=True)
class OneOf:
    """A label of the closed set ``kind``."""

    kind: str

    def render(self, value: Value) -> str:
        """Return the label as it is written in an answer."""
        if not isinstance(value, str):
            raise TypeError(f"a {self.kind} is one label, found {value!r:.60}")
        return value

    def parse(self, text: str, vocabulary: Vocabulary) -> Answer:
        """Return the label that ``text`` ends on. Never raises on any text."""
        response = split_response(text)
        if response.failure:
            return Answer(None, response.trace, response.failure)
        label = vocabulary.label(self.kind, response.answer)
        return Answer(label, response.trace, "" if label else "unknown_label")


@dataclass(frozen=True)
class Genes:
    """A ranked list of genes of the vocabulary."""

    def render(self, value: Value) -> str:
        """Return the cell sentence of the list."""
        if isinstance(value, str):
            raise TypeError(f"a gene list is a sequence of names, found {value!r:.60}")
        return " ".join(value)

    def parse(self, text: str, vocabulary: Vocabulary) -> Answer:
        """Return the genes that ``text`` lists, without repeats and unknown ones. Never raises on any text."""
        response = split_response(text)
        if response.failure:
            return Answer(None, response.trace, response.failure)
        words = response.answer.replace(",", " ").split()[:MAX_GENES]
        genes = [gene for gene in map(vocabulary.gene, words) if gene is not None]
        value = tuple(dict.fromkeys(genes))
        return Answer(
            value or None,
            response.trace,
            "" if value else "empty",
            listed=len(words),
            unknown=len(words) - len(genes),
            repeated=len(genes) - len(value),
        )


def bulleted(names: Iterable[str]) -> str:
    """Return one name a line, each behind a dash: a closed set as prompts show it."""
    return "\n".join(f"- {name}" for name in names)
