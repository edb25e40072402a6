"""What is put to the test, and with what: ways to pay a task, and answers of known worth about one cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from cellduality_plugin.duals import NEGATIVES
from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.examples import Example, Value
from cellduality_plugin.files import read_jsonl
from cellduality_plugin.parsing import Genes, OneOf
from cellduality_plugin.reward_names import shortened
from cellduality_plugin.similarity import rank_weighted_jaccard, rank_weights
from cellduality_plugin.tasks import DualTask
from cellduality_plugin.vocabulary import Vocabulary

FILE = "audit.jsonl"
NEIGHBOURS = 5
"""How many real cells, the nearest by RWJS, vote on what a written one is."""

Kind: TypeAlias = Literal["true", "wrong", "reordered", "copied", "another's"]
"""The true answer; a wrong label, or a real cell of another condition; the true genes in random order; a gene list of
the question itself; the true answer of a cell drawn at random, whatever its condition."""

RewardName: TypeAlias = "str | Mapping[str, float]"
"""A product of kinds, or {such a product: weight}."""


@dataclass(frozen=True)
class Contender:
    """One way to pay a task, in the words of :class:`cellduality_plugin.config.TaskSettings`."""

    reward: RewardName
    hidden: float | None = None  # the share of a cell's genes that the dual rebuilds; None: the split of the row
    traces: int = 0

    @property
    def title(self) -> str:
        """The name in tables, such as ``posterior, 25 % hidden, 4 traces``."""
        parts = [shortened(self.reward, ":")]
        if self.hidden is not None:
            parts.append(f"{'all' if self.hidden == 1 else f'{100 * self.hidden:g} %'} hidden")
        if self.traces:
            parts.append(f"{self.traces} trace{'s' if self.traces > 1 else ''}")
        return ", ".join(parts)


@dataclass(frozen=True)
class AuditSettings:
    """How rewards are put to the test."""

    rewards: tuple[RewardName, ...] = ()  # of these three every combination that makes sense for a task
    hidden: tuple[float, ...] = ()
    traces: tuple[int, ...] = ()
    cells: int = 32  # of each task
    masks: int | None = None  # of each cell; None: all
    masks_of_a_rollout: int = 1  # over which its reward is the mean in training
    samples: int = 8  # answers of the policy,
    temperature: float = 1.0  # drawn at this
    others: int = 4  # real cells of other conditions that a written one is compared with
    seed: int = 0  # of every random choice
    resamples: int = 500


@dataclass(frozen=True)
class Case:
    """One cell under audit, with answers of known worth and, once it was asked, the policy's own."""

    task: DualTask
    example: Example  # its row, with gold
    splits: tuple[Example, ...]  # that row under each mask
    candidates: tuple[tuple[Kind, Value], ...]  # the true answer first
    greedy: Value | None = None  # the policy's likeliest answer; None if it was not asked for or could not be read
    samples: Sequence[str] = ()  # its drawn responses, whole
    values: Sequence[Value | None] = ()  # what was read in them
    truths: Mapping[str, Sequence[float]] = field(default_factory=dict)  # how true they are, the headline measure first

    @property
    def names_a_label(self) -> bool:
        """Whether the answer is one of a closed set."""
        return isinstance(self.task.answer, OneOf)

    @property
    def gold(self) -> Value:
        """The true answer."""
        return self.candidates[0][1]


def read_audit_rows(data: Path, tasks: Mapping[str, DualTask]) -> dict[str, list[Example]]:
    """Return the labelled rows of each task that is answered by a label or by genes; a CellDualityError if none."""
    path = data / FILE
    if not path.is_file():
        hint = "prepare the data again (cellduality data prepare)"
        raise CellDualityError("no cells to audit", code="missing-audit-rows", where=str(path), hint=hint)
    every = [Example.from_label(row.get("label", "")) for row in read_jsonl(path)]
    fit = [name for name, task in tasks.items() if isinstance(task.answer, OneOf | Genes)]
    found = {name: own for name in fit if (own := [each for each in every if each.task == name])}
    if not found:
        what, hint = f"no row of {', '.join(tasks)}", "prepare the data again, with --audit-cells above 0"
        raise CellDualityError(what, code="empty-audit-rows", where=str(path), hint=hint)
    return found


def make_cases(
    task: DualTask, rows: Sequence[Example], vocabulary: Vocabulary, settings: AuditSettings, rng: np.random.Generator
) -> list[Case]:
    """Return the first rows of ``task`` with their candidates, wrong ones from other rows; each must hold gold."""

    def candidates(row: Example) -> Iterable[tuple[Kind, Value]]:
        gold = gold_of(row)
        yield "true", gold
        elsewhere = [other for other in rows if other.id != row.id]
        if isinstance(task.answer, OneOf):
            wrong_labels = [label for label in vocabulary.labels[task.answer.kind] if label != gold]
            if not vocabulary.lists(task.answer.kind):
                wrong_labels = [wrong_labels[place] for place in rng.permutation(len(wrong_labels))[:NEGATIVES]]
            yield from (("wrong", label) for label in wrong_labels)
        else:
            wrong = [other for other in elsewhere if other.unknown != row.unknown]
            yield from (("wrong", gold_of(wrong[index])) for index in rng.permutation(len(wrong))[: settings.others])
            yield "reordered", tuple(rng.permutation(list(gold)).tolist())
            yield from (("copied", value) for value in row.inputs.values() if isinstance(value, tuple))
        if elsewhere:
            yield "another's", gold_of(elsewhere[rng.integers(len(elsewhere))])

    return [Case(task, row, row.splits()[: settings.masks], tuple(candidates(row))) for row in rows[: settings.cells]]


class NearestCells:
    """Real cells of known conditions, the ``unknown`` of their rows: all at once, for an audit asks often."""

    def __init__(self, rows: Sequence[Example]) -> None:
        self._cells = [gold_of(row) for row in rows]
        self._conditions = np.array([row.unknown for row in rows], dtype=object)
        self._places = {gene: place for place, gene in enumerate(sorted({g for cell in self._cells for g in cell}))}
        self._weights = np.zeros((len(rows), len(self._places)))
        for weights, cell in zip(self._weights, self._cells, strict=True):
            for gene, weight in rank_weights(cell).items():
                weights[self._places[gene]] = weight

    def share_near(self, answer: Sequence[str], condition: Value, without: Value) -> float:
        """Return the share, in [0, 1], of ``condition`` among the :data:`NEIGHBOURS` nearest cells by RWJS.

        Cells of the genes ``without`` do not count: the true one must not vouch for itself.
        """
        weights = rank_weights(answer)
        known = [gene for gene in weights if gene in self._places]
        columns = self._weights[:, [self._places[gene] for gene in known]]
        theirs = (columns > 0) @ np.array([weights[gene] for gene in known], dtype=float)
        union = self._weights.sum(axis=1) + sum(weights.values()) - theirs
        rwjs = (columns.sum(axis=1) + theirs) / 2 / np.maximum(union, 1e-12)
        others = np.array([cell != without for cell in self._cells], dtype=bool)
        near = np.argsort(-rwjs[others], kind="stable")[:NEIGHBOURS]
        return float(np.mean([each == condition for each in self._conditions[others][near]])) if len(near) else 0.0


def truths(case: Case, answers: Sequence[Value | None], real: NearestCells | None = None) -> dict[str, list[float]]:
    """Return {measure: how true each answer is, in [0, 1]}, the headline first; NaN for a cell that was not readable.

    Of labels ``"correct"``; of written cells ``"knn"``, as :meth:`NearestCells.share_near`, and ``"rwjs"`` to the true
    cell.
    """
    if real is None:
        return {"correct": [float(answer == case.gold) for answer in answers]}
    condition, nothing = case.example.unknown, float("nan")
    return {
        "knn": [nothing if cell is None else real.share_near(cell, condition, case.gold) for cell in answers],
        "rwjs": [nothing if cell is None else rank_weighted_jaccard(case.gold, cell) for cell in answers],
    }


def gold_of(row: Example) -> Value:
    if row.gold is None:
        where, hint = f"row {row.id} of {row.task}", "prepare the data again"
        raise CellDualityError("the row holds no true answer", code="missing-gold", where=where, hint=hint)
    return row.gold
