"""What a dual pair is: two prompts, two kinds of answer, one similarity."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.examples import Example, Value
from cellduality_plugin.parsing import Answer, Field, join_response
from cellduality_plugin.vocabulary import Vocabulary

FORMAT_RULE = "Reason inside <think></think>, then give the answer inside <answer></answer>."


class DualTask(ABC):
    """A primal task and its complementary dual (Definition 3.1).

    A pair is one short class: the fields ``answer`` (what the primal gives) and ``unknown`` (what the dual
    rebuilds), the two prompts, how a cell becomes an :class:`Example`, and the similarity that is the reward.
    Prompts open with what never changes and end with the cell, so that an engine's prefix cache holds the opening.
    """

    name: ClassVar[str]
    answer: ClassVar[Field]
    unknown: ClassVar[Field]
    needs: ClassVar[tuple[str, ...]] = ()
    """Columns of ``Cell.obs`` that even an unlabelled row needs, because the prompt itself shows them."""

    @abstractmethod
    def primal_prompt(self, inputs: Mapping[str, Value], vocabulary: Vocabulary) -> str:
        """Return the question x."""

    @abstractmethod
    def dual_prompt(self, known: Mapping[str, Value], answer: Value, vocabulary: Vocabulary) -> str:
        """Return the inverse question (y, x_k): only the parsed answer and the known part may appear in it."""

    @abstractmethod
    def example(self, cell: Cell, *, hidden: float, labelled: bool, rng: np.random.Generator) -> Example:
        """Return one row for ``cell``; with ``labelled`` false its ``gold`` is None.

        Parameters
        ----------
        cell
            The cell and what is known of it.
        hidden
            The fraction of genes to hide, for tasks that hide genes.
        labelled
            Whether the row may hold the gold answer.
        rng
            The only source of randomness.
        """

    @abstractmethod
    def similarity(self, unknown: Value, rebuilt: Value) -> float:
        """Return how well ``rebuilt`` matches x_u, in [0, 1]; best value 1."""

    def validity(self, example: Example, answer: Answer) -> float:
        """Return the well-formedness of the primal answer, in [0, 1]; a factor of the reward. 1 unless overridden."""
        return 1.0

    def parse_answer(self, text: str, vocabulary: Vocabulary) -> Answer:
        """Return the primal answer in ``text``. Never raises on any text."""
        return self.answer.parse(text, vocabulary)

    def parse_rebuilt(self, text: str, vocabulary: Vocabulary) -> Answer:
        """Return the reconstruction in ``text``. Never raises on any text."""
        return self.unknown.parse(text, vocabulary)

    def answer_response(self, value: Value, trace: str = "") -> str:
        """Return the response whose parsed answer is ``value``."""
        return join_response(self.answer.render(value), trace)

    def rebuilt_response(self, value: Value, trace: str = "") -> str:
        """Return the dual response whose parsed reconstruction is ``value``."""
        return join_response(self.unknown.render(value), trace)


def one(values: Mapping[str, Value], key: str) -> str:
    """Return the label under ``key``."""
    value = values[key]
    if not isinstance(value, str):
        raise TypeError(f"{key!r} must be one label, found a list")
    return value


def many(values: Mapping[str, Value], key: str) -> tuple[str, ...]:
    """Return the gene list under ``key``."""
    value = values[key]
    if isinstance(value, str):
        raise TypeError(f"{key!r} must be a list of genes, found {value!r:.60}")
    return value
