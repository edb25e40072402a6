"""Answers of known worth about one cell: what a reward is put to the test with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example, Value
from cellduality_plugin.parsing import Genes, OneOf
from cellduality_plugin.similarity import rank_weighted_jaccard, rank_weights
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.vocabulary import Vocabulary

Kind: TypeAlias = Literal["true", "wrong", "reordered", "copied", "another's"]
"""The true answer; a wrong label, or a real cell of another condition; the true genes in random order; a gene list of
the question itself; the true answer of a cell drawn at random, whatever its condition."""

NEIGHBOURS = 5
"""Of a sampled cell, by RWJS: how many real cells vote on what it is."""


@dataclass(frozen=True)
class Candidate:
    """One answer and what is wrong with it, if anything."""

    kind: Kind
    value: Value


@dataclass(frozen=True)
class Case:
    """One cell under audit.

    Parameters
    ----------
    example
        The row, with gold.
    splits
        The row under each mask that is looked at.
    candidates
        Answers of known worth; the true one first, for labels one a label.
    """

    task: DualTask
    example: Example
    splits: tuple[Example, ...]
    candidates: tuple[Candidate, ...]

    @property
    def names_a_label(self) -> bool:
        """Whether the answer is one of a closed set."""
        return isinstance(self.task.answer, OneOf)


def make_cases(
    task: DualTask,
    rows: Sequence[Example],
    vocabulary: Vocabulary,
    *,
    cells: int,
    masks: int | None,
    others: int,
    rng: np.random.Generator,
) -> list[Case]:
    """Return the first ``cells`` rows of ``task`` with their candidates.

    Parameters
    ----------
    rows
        Rows of the task with gold. Those past the first ``cells`` lend their answers as wrong ones.
    masks
        Masks of a row that are looked at; None for all.
    others
        Real cells of other conditions that a generated cell is held against.

    Raises
    ------
    CellDualityError
        If a row holds no gold.
    """
    for row in rows:
        if row.gold is None:
            raise CellDualityError(
                "the row holds no true answer", where=f"row {row.id} of {task.name}", mend="prepare the data again"
            )
    return [
        Case(task, row, row.splits()[:masks], tuple(_candidates(task, place, rows, vocabulary, others, rng)))
        for place, row in enumerate(rows[:cells])
    ]


def can_be_audited(task: DualTask) -> bool:
    """Return whether the answers of ``task`` are labels or gene lists: of others no wrong ones are known."""
    return isinstance(task.answer, (OneOf, Genes))


def _candidates(
    task: DualTask,
    place: int,
    rows: Sequence[Example],
    vocabulary: Vocabulary,
    others: int,
    rng: np.random.Generator,
) -> Iterable[Candidate]:
    row = rows[place]
    assert row.gold is not None
    yield Candidate("true", row.gold)
    elsewhere = [other for other in rows if other.id != row.id]
    if isinstance(task.answer, OneOf):
        yield from (Candidate("wrong", label) for label in vocabulary.labels[task.answer.kind] if label != row.gold)
    else:
        wrong = [other for other in elsewhere if other.unknown != row.unknown]
        for index in rng.permutation(len(wrong))[:others]:
            yield Candidate("wrong", _gold(wrong[index]))
        yield Candidate("reordered", tuple(rng.permutation(list(row.gold)).tolist()))
        yield from (Candidate("copied", value) for value in row.inputs.values() if isinstance(value, tuple))
    if elsewhere:
        yield Candidate("another's", _gold(elsewhere[rng.integers(len(elsewhere))]))


def _gold(row: Example) -> Value:
    assert row.gold is not None
    return row.gold


class RealCells:
    """Real cells of known conditions, among which the nearest to a written one are looked up.

    Parameters
    ----------
    rows
        With gold genes; ``unknown`` is the condition.
    """

    def __init__(self, rows: Sequence[Example]) -> None:
        self._cells = [_gold(row) for row in rows]
        self._conditions = np.array([row.unknown for row in rows], dtype=object)
        self._places = {gene: place for place, gene in enumerate(sorted({g for cell in self._cells for g in cell}))}
        self._weights = np.zeros((len(rows), len(self._places)))
        for weights, cell in zip(self._weights, self._cells, strict=True):
            for gene, weight in rank_weights(cell).items():
                weights[self._places[gene]] = weight

    def share_near(self, answer: Sequence[str], condition: Value, without: Value) -> float:
        """Return how many of the :data:`NEIGHBOURS` nearest cells by RWJS are of ``condition``, as a share in [0, 1].

        Parameters
        ----------
        without
            The genes of cells that do not count: the true one must not vouch for itself.
        """
        others = np.array([cell != without for cell in self._cells], dtype=bool)
        near = np.argsort(-self._rwjs(answer)[others], kind="stable")[:NEIGHBOURS]
        return float(np.mean([each == condition for each in self._conditions[others][near]])) if len(near) else 0.0

    def _rwjs(self, answer: Sequence[str]) -> NDArray[np.float64]:
        """Return :func:`rank_weighted_jaccard` of each cell and ``answer``."""
        weights = rank_weights(answer)
        known = [gene for gene in weights if gene in self._places]
        columns = self._weights[:, [self._places[gene] for gene in known]]
        theirs = (columns > 0) @ np.array([weights[gene] for gene in known], dtype=float)
        union = self._weights.sum(axis=1) + sum(weights.values()) - theirs
        return np.asarray((columns.sum(axis=1) + theirs) / 2 / np.maximum(union, 1e-12))


def truths(case: Case, answers: Sequence[Value | None], real: RealCells | None = None) -> dict[str, list[float]]:
    """Return {measure: how true each answer is, in [0, 1]}; NaN for one that could not be read. Best value 1.

    Labels are right or wrong (``"correct"``). Of written cells ``real`` tells what most of their nearest real cells are
    (``"knn"``: the share of the right condition among them); beside it stands how near they come to the true cell
    (``"rwjs"``), which a condition does not tell and no reward can follow. The first measure is the headline.
    """
    gold, example = case.example.gold, case.example
    if real is None:
        return {"correct": [float(answer == gold) for answer in answers]}
    assert gold is not None  # make_cases() refuses such a row
    nothing = float("nan")
    return {
        "knn": [nothing if cell is None else real.share_near(cell, example.unknown, gold) for cell in answers],
        "rwjs": [nothing if cell is None else rank_weighted_jaccard(gold, cell) for cell in answers],
    }


def by_task(rows: Iterable[Mapping[str, Any]], tasks: Mapping[str, DualTask]) -> dict[str, list[Example]]:
    """Return the rows of an audit file by task, in the order of ``tasks``; rows of other tasks are left out."""
    found: dict[str, list[Example]] = {name: [] for name in tasks}
    for row in rows:
        example = Example.from_label(row.get("label", ""))
        if example.task in found:
            found[example.task].append(example)
    return {name: examples for name, examples in found.items() if examples}
