"""Answers of known worth about one cell: what a reward is put to the test with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example, Value
from cellduality_plugin.parsing import Genes, OneOf
from cellduality_plugin.similarity import rank_weighted_jaccard
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


def truths(case: Case, answers: Sequence[Value | None], real: Sequence[tuple[Value, Value]]) -> dict[str, list[float]]:
    """Return {measure: how true each answer is, in [0, 1]}; NaN for one that could not be read. Best value 1.

    Labels are right or wrong (``"correct"``). Cells are compared with the true one (``"rwjs"``), and asked what most of
    their nearest real cells are (``"knn"``: the share of the right condition among the nearest by RWJS).

    Parameters
    ----------
    real
        (condition, genes) of real cells.
    """
    gold = case.example.gold
    if case.names_a_label:
        return {"correct": [float(answer == gold) for answer in answers]}
    found: dict[str, list[float]] = {"rwjs": [], "knn": []}
    others = [cell for cell in real if cell[1] != gold]
    for answer in answers:
        if answer is None:
            found["rwjs"].append(float("nan"))
            found["knn"].append(float("nan"))
            continue
        found["rwjs"].append(rank_weighted_jaccard(gold or (), answer))
        alike = [(rank_weighted_jaccard(genes, answer), condition) for condition, genes in others]
        near = sorted(alike, key=lambda cell: -cell[0])[:NEIGHBOURS]
        found["knn"].append(sum(condition == case.example.unknown for _, condition in near) / max(1, len(near)))
    return found


def real_cells(rows: Sequence[Example], limit: int = 64) -> list[tuple[Value, Value]]:
    """Return (condition, genes) of the first ``limit`` rows."""
    return [(row.unknown, _gold(row)) for row in rows[:limit]]


def by_task(rows: Iterable[Mapping[str, Any]], tasks: Mapping[str, DualTask]) -> dict[str, list[Example]]:
    """Return the rows of an audit file by task, in the order of ``tasks``; rows of other tasks are left out."""
    found: dict[str, list[Example]] = {name: [] for name in tasks}
    for row in rows:
        example = Example.from_label(row.get("label", ""))
        if example.task in found:
            found[example.task].append(example)
    return {name: examples for name, examples in found.items() if examples}
