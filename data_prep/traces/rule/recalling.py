"""The rule's answer to "which genes?": a cell it has seen, well or badly remembered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cellduality_plugin.cell_sentences import Cell, sentence
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.traces.questions import Question
from data_prep.traces.rule.markers import Markers, value_of
from data_prep.traces.rule.shown import ANSWER, MAX_WORDS, POOL, lists_shown, parts_shown, some

FOR, AND, HIGH = LIST_WORDS = ("For", "and", "high:")

FEWEST = 3
"""Genes that a trace names, if there are as many."""

LOSS = 0.7
"""The share of genes that the worst memory replaces by another cell's."""


class CellRule:
    """Lists genes: recalls a labelled cell of the labels shown, and names markers of theirs beforehand.

    Candidate 0 recalls the very cell the question was made from, unless the question shows another label than that
    cell has: then, and for part of the later candidates, another cell of the labels shown. The other candidates
    recall the cell with ranks shaken and genes replaced, the more of them the higher the number.
    """

    def __init__(self, cells: Sequence[Cell], markers: Mapping[str, Markers], vocabulary: Vocabulary) -> None:
        self._cells = {cell.id: cell for cell in cells}
        self._markers, self._vocabulary = markers, vocabulary
        self._genes = frozenset(vocabulary.genes)
        self._values = {pair for cell in cells for pair in (*cell.obs.items(), *cell.condition.items())}
        self._columns = {column for column, _ in self._values}
        self._alike: dict[tuple[tuple[str, str], ...], list[Cell]] = {}

    def answer(self, question: Question, candidate: int, rng: np.random.Generator) -> tuple[str, tuple[str, ...]]:
        """Return (trace, genes) for a question about a list of genes."""
        condition, gold = self._condition(question), tuple(question.gold)
        own = self._cells.get(question.example.id)
        shown = {gene for genes in lists_shown(question).values() for gene in genes}
        taboo = shown if shown.isdisjoint(gold) else set()  # the rest of a cell is asked for, not what is shown of it
        given = question.example.inputs.get("length", "") if question.direction == "primal" else ""
        length = int(given) if isinstance(given, str) and given.isdecimal() else len(gold)

        genes: Sequence[str] = gold
        mistaken = candidate > 0 and rng.random() < min(0.15 + 0.2 * candidate, 0.75)
        if own is None or not _is_of(own, condition) or mistaken:
            genes = self._another(condition, question.example.id, rng).genes
        elif candidate:
            genes = self._garbled(gold, min(candidate / 3, 1.0) * rng.uniform(0.4, 1.0), rng)
        listed = self._fitted(genes, length, taboo, rng)
        return self._plan(condition, listed, taboo, rng), listed

    def _condition(self, question: Question) -> dict[str, str]:
        """Return the values shown, by the column of the cells that has them, or by the label set they are of."""
        found: dict[str, str] = {}
        for name, value in parts_shown(question).items():
            if not isinstance(value, str):
                continue
            if name == ANSWER and isinstance(question.pair.answer, OneOf):
                found[question.pair.answer.kind] = value
            elif (name, value) in self._values:
                found[name] = value
            else:
                found |= {kind: value for kind, labels in self._vocabulary.labels.items() if value in labels}
        return {column: value for column, value in found.items() if column in self._columns}

    def _another(self, condition: Mapping[str, str], but: str, rng: np.random.Generator) -> Cell:
        """Return another labelled cell of the condition; any other cell where there is none."""
        key = tuple(sorted(condition.items()))
        if key not in self._alike:
            self._alike[key] = [cell for cell in self._cells.values() if _is_of(cell, condition)]
        for cells in (self._alike[key], list(self._cells.values())):
            others = [cell for cell in cells if cell.id != but]
            if others:
                return others[rng.integers(len(others))]
        return next(iter(self._cells.values()))

    def _garbled(self, genes: Sequence[str], strength: float, rng: np.random.Generator) -> list[str]:
        """Return the list with ranks shaken and a share of the genes lost to another cell's; ``strength`` in [0, 1]."""
        own = set(genes)
        others = [gene for gene in self._another({}, "", rng).genes if gene not in own]
        replacements = iter(some(others, len(others), rng))
        lost = rng.random(len(genes)) < LOSS * strength
        mixed = [next(replacements, gene) if gone else gene for gene, gone in zip(genes, lost, strict=True)]
        order = np.argsort(np.arange(len(mixed)) + rng.normal(size=len(mixed)) * strength * len(mixed) / 3)
        return [mixed[place] for place in order]

    def _fitted(self, genes: Sequence[str], length: int, taboo: set[str], rng: np.random.Generator) -> tuple[str, ...]:
        """Return ``length`` different genes of the vocabulary, none taboo; too short a list is filled up with any."""
        names = [gene for gene in dict.fromkeys(genes) if gene in self._genes and gene not in taboo][: max(length, 1)]
        if len(names) < length:
            used = taboo | {*names}
            names += some([gene for gene in self._vocabulary.genes if gene not in used], length - len(names), rng)
        return tuple(names)

    def _plan(
        self, condition: Mapping[str, str], listed: Sequence[str], taboo: set[str], rng: np.random.Generator
    ) -> str:
        """Return the trace: the labels shown, and what is high: markers of theirs that are listed, or else others."""
        shown = [(kind, label) for kind, label in condition.items() if label in self._labels_of(kind)][:2]
        weight: dict[str, float] = {}
        for gene, value in (pair for kind, label in shown for pair in self._markers[kind].present[label]):
            weight[gene] = max(weight.get(gene, 0.0), value)
        ranked, inside = sorted(weight, key=lambda gene: -weight[gene]), set(listed)
        pool = [gene for gene in ranked if gene in inside][:POOL]
        others = [*(gene for gene in ranked if gene not in inside | taboo), *listed]
        pool += [gene for gene in dict.fromkeys(others) if gene not in pool][: max(FEWEST - len(pool), 0)]

        opening = f"{FOR} {f' {AND} '.join(label for _, label in shown)} {HIGH}" if shown else HIGH
        room = max(MAX_WORDS - len(opening.split()), 1)
        count = min(int(rng.integers(FEWEST, 7)), room, max(len(listed) // 2, FEWEST))
        chosen = set(some(pool, count, rng))
        return f"{opening} {sentence([gene for gene in pool if gene in chosen])}"

    def _labels_of(self, kind: str) -> Sequence[str]:
        return self._markers[kind].labels if kind in self._markers else ()


def _is_of(cell: Cell, condition: Mapping[str, str]) -> bool:
    return all(value_of(cell, column) == value for column, value in condition.items())
