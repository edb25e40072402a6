"""Traces that did not reason: the teacher was told the answer, or wrote it out before answering."""

from __future__ import annotations

import re

from cellduality_plugin.examples import Value
from cellduality_plugin.vocabulary import Vocabulary

ANSWER_PHRASES = (
    "correct answer", "ground truth", "gold answer", "gold label", "answer key", "reference answer", "expected answer",
    "given answer", "provided answer", "answer is given", "answer was given", "answer provided", "told the answer",
)  # fmt: skip
"""What a trace says of an answer that it knows from elsewhere; case, punctuation and spacing do not count."""

LABEL_PHRASES = (
    "given label", "provided label", "true label", "known label", "label provided", "label is given",
    "was given the label", "as provided",
)  # fmt: skip
"""The same where the answer is a label. A question whose answer is a list of genes shows a label: it may be named."""

FEWEST_WRITTEN = 4
"""A trace may always name this many genes of the answer: that is evidence, not a copy."""

_MARKUP = re.compile(r"</?[a-zA-Z]\w*\s*/?>|<\|[^<>|]*\|>|\[/?INST\]")
_WORD = re.compile(r"[^\W_]+")


def leak(trace: str, value: Value, vocabulary: Vocabulary, most_written: float = 0.5) -> str:
    """Return what gives a trace away: a phrase, a tag, or ``"N genes of the answer"``; nothing for a clean trace.

    A trace that ends on the label it answers is no leak: that is what reasoning does. So is a label that the question
    shows. A trace that lists the answer's genes one by one teaches the student to answer twice.

    ``value`` is the answer, a label or genes, of which the trace may write out a share of ``most_written``, in [0, 1].

    Examples
    --------
    >>> world = Vocabulary(genes=tuple("ABCDEFGH"), labels={})
    >>> leak("The Ground-Truth says so.", "T", world), leak("CD3D is high, so it is a T cell.", "T", world)
    ('ground truth', '')
    >>> leak("First A, B, C, D and E.", tuple("ABCDEFGH"), world)
    '5 genes of the answer'
    """
    folded = f" {' '.join(_WORD.findall(trace.casefold()))} "
    for phrase in ANSWER_PHRASES + (LABEL_PHRASES if isinstance(value, str) else ()):
        if f" {phrase} " in folded:
            return phrase
    markup = _MARKUP.search(trace)
    if markup:
        return str(markup.group())
    if not isinstance(value, str):
        words = (word.strip(".,;:!?()[]{}\"'`*") for word in re.split(r"[\s,;/]+", trace))
        written = len({vocabulary.gene(word) for word in words} & set(value))
        if written > max(FEWEST_WRITTEN, most_written * len(value)):
            return f"{written} genes of the answer"
    return ""
