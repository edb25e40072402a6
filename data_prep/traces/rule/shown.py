"""What a question shows to whoever answers it, by the kinds of its fields and never by its pair's name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from cellduality_plugin.examples import Value
from data_prep.traces.questions import Question

T = TypeVar("T")

ANSWER = ""
"""The name of the answer that a dual question shows: it has none of its own."""

MAX_WORDS = 16
"""Of a sound trace: a small model pays for every word, in training and in every rollout."""

POOL = 10
"""The strongest pieces of evidence, of which a candidate cites a few."""


def parts_shown(question: Question) -> dict[str, Value]:
    """Return the labels and gene lists that a question shows, by name."""
    if question.direction == "primal":
        return dict(question.example.inputs)
    return {**question.example.known, ANSWER: question.answer}


def lists_shown(question: Question) -> dict[str, tuple[str, ...]]:
    """Return the gene lists that a question shows, by name, without repeats."""
    parts = parts_shown(question).items()
    return {name: tuple(dict.fromkeys(value)) for name, value in parts if not isinstance(value, str)}


def cell_shown(question: Question) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return (the genes of the cell a question is about, those of the untreated cell beside it); either may be ()."""
    lists = lists_shown(question)
    control = lists.pop("control", ())
    if not lists:
        return control, ()
    return lists.get(ANSWER, lists.get("cell", next(iter(lists.values())))), control


def some(items: Sequence[T], count: int, rng: np.random.Generator) -> list[T]:
    """Return ``count`` of the items in random order; all of them if there are no more."""
    return [items[place] for place in rng.permutation(len(items))[: max(count, 0)]]
