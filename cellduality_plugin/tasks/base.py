"""What a dual pair is: two prompts, two kinds of answer, one similarity."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, TypeVar

import numpy as np

from cellduality_plugin.cell_sentences import Cell, hide_genes
from cellduality_plugin.examples import Example, Value
from cellduality_plugin.parsing import Answer, Field, Genes, OneOf, bulleted, join_response
from cellduality_plugin.perturbations import FORM, KIND
from cellduality_plugin.seeds import request_seed
from cellduality_plugin.similarity import exact_match, rank_weighted_jaccard
from cellduality_plugin.vocabulary import Vocabulary

TASKS: dict[str, DualTask] = {}  # the built-in pairs, in the order of rows and tables
SHOWN = 5  # labels of a set that a question does not list, and shows for their form
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
    family: ClassVar[str] = "other pairs"  # under which Figure 2 shows it; the paper's are identity and dynamics
    needs: ClassVar[tuple[str, ...]] = ()
    """Columns that even an unlabelled row shows: of ``Cell.condition``, which are known of every cell, or of
    ``Cell.obs``, for which labelled cells are drawn. ``"control"`` stands for the untreated cell a cell is paired with.
    """

    @property
    def kinds(self) -> tuple[str, ...]:
        """The label sets of the vocabulary that the pair uses, in alphabetical order."""
        return tuple(sorted({field.kind for field in (self.answer, self.unknown) if isinstance(field, OneOf)}))

    @abstractmethod
    def primal_prompt(self, inputs: Mapping[str, Value], vocabulary: Vocabulary) -> str:
        """Return the question x."""

    @abstractmethod
    def dual_prompt(self, known: Mapping[str, Value], answer: Value, vocabulary: Vocabulary) -> str:
        """Return the inverse question (y, x_k): only the parsed answer and the known part may appear in it."""

    @abstractmethod
    def example(self, cell: Cell, *, hidden: float, labelled: bool, rng: np.random.Generator) -> Example:
        """Return one row for ``cell``; with ``labelled`` false its ``gold`` is None.

        ``hidden`` is the fraction of genes to hide, for tasks that hide genes; 1 hides the whole cell. ``rng`` is the
        only source of randomness.
        """

    def hide(self, example: Example, share: float, rng: np.random.Generator | None = None) -> Example:
        """Return ``example`` with another split of the same cell; itself, for a task that hides no genes.

        ``share`` in (0, 1] is the fraction of genes to hide; 1 hides the whole cell and takes no randomness. By default
        ``rng`` depends on the row's id alone, so that every process splits the row alike.
        """
        return example

    @abstractmethod
    def similarity(self, unknown: Value, rebuilt: Value) -> float:
        """Return how well ``rebuilt`` matches x_u, in [0, 1]; best value 1."""

    def truth(self, gold: Value, answer: Value) -> float:
        """Return how well ``answer`` matches the true one, in [0, 1]; best value 1. Labels exactly, lists by RWJS."""
        if isinstance(gold, str) or isinstance(answer, str):
            return exact_match(gold, answer)
        return rank_weighted_jaccard(gold, answer)

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


Pair = TypeVar("Pair", bound=type[DualTask])


def built_in(pair: Pair) -> Pair:
    """Register a pair under its name, so that it is found without an import path."""
    TASKS[pair.name] = pair()
    return pair


class LabelTask(DualTask):
    """Cell -> label, judged by how well the cell's hidden genes can be rebuilt under that label.

    x_k is the observed genes and whatever the question shows (``needs``), x_u the hidden genes; the reward is
    RWJS(hidden, rebuilt), section 3.4.1. The label is the column of the cell that ``answer`` is the kind of.
    Where the whole cell is hidden x_k holds its ``length`` in place of ``observed`` genes, and the dual is to write a
    cell of the label, in the wording of the pair that does just that.
    """

    answer: ClassVar[OneOf]
    unknown: ClassVar[Field] = Genes()

    def example(self, cell: Cell, *, hidden: float, labelled: bool, rng: np.random.Generator) -> Example:
        shown: dict[str, Value] = {
            column: cell.control if column == "control" else cell.value(column) for column in self.needs
        }
        gold = cell.value(self.answer.kind) if labelled else None
        row = Example(self.name, cell.id, {"cell": cell.genes, **shown}, {}, cell.genes, gold)
        return self.hide(row, hidden, rng)

    def hide(self, example: Example, share: float, rng: np.random.Generator | None = None) -> Example:
        cell = self.whole(example)
        shown = {column: example.inputs[column] for column in self.needs}
        if share >= 1:
            return replace(example, known={**shown, "length": str(len(cell))}, unknown=cell, masks=())
        seen, unseen = hide_genes(cell, share, rng or np.random.default_rng(request_seed("hide", example.id)))
        return replace(example, known={"observed": seen, **shown}, unknown=unseen, masks=())

    def whole(self, example: Example) -> tuple[str, ...]:
        """Return the whole cell of a row: what is hidden if all of it is, for the question may show less of it."""
        return many(example.inputs, "cell") if "observed" in example.known else many({"x_u": example.unknown}, "x_u")

    def similarity(self, unknown: Value, rebuilt: Value) -> float:
        return rank_weighted_jaccard(unknown, rebuilt)


class CellTask(DualTask):
    """Condition -> cell, judged by whether the cell shows the condition: 1[rebuilt = condition], Eq. 2."""

    answer: ClassVar[Field] = Genes()
    unknown: ClassVar[OneOf]

    def similarity(self, unknown: Value, rebuilt: Value) -> float:
        return exact_match(unknown, rebuilt)

    def validity(self, example: Example, answer: Answer) -> float:
        """Return the share of the cell that holds a different gene of the vocabulary.

        Repeats, unknown and missing genes lower it; a list longer than was asked for is measured by its own length.
        """
        genes = len(answer.value) if answer.value else 0
        return genes / max(answer.listed, int(one(example.inputs, "length")), 1)


def choices(what: str, kind: str, vocabulary: Vocabulary) -> str:
    """Return the lines that say what a question may be answered with: the labels of ``kind``, called ``what``.

    Of a set that :meth:`Vocabulary.lists` they are all there; of a larger one some, for how labels are written.
    """
    labels = vocabulary.labels[kind]
    if vocabulary.lists(kind):
        return f"The {what} are:\n{bulleted(labels)}"
    form = FORM if kind == KIND else "Write one"
    some = [labels[place * len(labels) // SHOWN] for place in range(SHOWN)]
    return f"The {what} are too many to list. {form}, such as:\n{bulleted(dict.fromkeys(some))}"


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
