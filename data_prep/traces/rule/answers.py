"""The rule's answers: a label from some of the evidence for it, or the genes of a cell it has seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.cell_sentences import Cell, sentence
from cellduality_plugin.examples import Value
from cellduality_plugin.parsing import OneOf
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.splits import shuffled
from data_prep.traces.questions import Question
from data_prep.traces.rule.markers import Markers

PRESENT, ABSENT, SO = LABEL_WORDS = ("Present:", "Absent:", "So:")
FOR, AND, HIGH = LIST_WORDS = ("For", "and", "high:")

ANSWER = ""  # the name of the answer that a dual question shows: it has none of its own
MAX_WORDS = 16  # of a sound trace: a small model pays for every word, in training and in every rollout
POOL = 10  # the strongest pieces of evidence, of which a candidate cites a few
DOUBT = 0.25  # how much more candidate k may err than k - 1 in what it suspects, in spreads of the labels' scores
FEWEST = 3  # genes that the trace of a list names, if there are as many
LOSS = 0.7  # the share of genes that the worst memory replaces by another cell's


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


class LabelRule:
    """Names a label: suspects one, cites a random handful of the evidence for it, concludes from what it cited alone.

    It never looks at the right label, so it can be wrong.
    """

    def __init__(self, markers: Mapping[str, Markers], vocabulary: Vocabulary) -> None:
        self._markers, self._labels = markers, vocabulary.labels
        self._place = {gene: place for place, gene in enumerate(vocabulary.genes)}
        # What a cell without a single gene would score, and which labels any cell has.
        self._bare = {kind: found.if_absent.sum(axis=1) for kind, found in markers.items()}
        self._seen = {kind: found.if_present.any(axis=1) for kind, found in markers.items()}

    def answer(self, question: Question, kind: str, candidate: int, rng: np.random.Generator) -> tuple[str, str]:
        """Return (trace, label) for a question about a label of ``kind``; nothing of it depends on the right label."""
        markers = self._markers.get(kind)
        if markers is None:  # no labelled cell has one: a guess
            label = shuffled(self._labels[kind], rng)[0]
            return f"{SO} {label}", label
        shown, control = cell_shown(question)
        genes = [gene for gene in shown if gene in self._place]
        suspect, rival = self._suspects(markers, genes, candidate, rng)
        label = markers.labels[suspect]
        room = MAX_WORDS - len(LABEL_WORDS) - len(label.split())
        n_present, n_absent = int(rng.integers(4, 7)), int(rng.integers(1, 4))

        def strongest(weights: NDArray[np.float64], genes: Sequence[str], factors: Iterable[float]) -> list[str]:
            """Return the genes that speak most for the suspect, and for it rather than for the rival."""
            at = weights[:, self._places(genes)]
            merit = (2 * at[suspect] - at[rival]) * [*factors]
            return [genes[place] for place in np.argsort(-merit, kind="stable")[:POOL]]

        # A marker counts half as much again; what the untreated cell shows too says half as much about what was done.
        marking = {gene for gene, _ in markers.present[label]}
        factors = ((1.5 if gene in marking else 1.0) / (2 if gene in control else 1) for gene in genes)
        present = _some(strongest(markers.if_present, genes, factors), min(n_present, max(room - 1, 1)), rng)
        # Of the markers of other labels that are not shown, half for what was never there.
        missing = [gene for gene, _ in markers.absent[label] if gene not in shown]
        factors = (0.5 if control and gene not in control else 1.0 for gene in missing)
        absent = _some(strongest(markers.if_absent, missing, factors), min(n_absent, room - len(present)), rng)
        # The label for which the genes cited speak most; among equals the suspect.
        score = markers.if_present[:, self._places(present)].sum(axis=1)
        score = score + markers.if_absent[:, self._places(absent)].sum(axis=1)
        label = label if score[suspect] >= score.max() else markers.labels[int(np.argmax(score))]
        parts = ((PRESENT, present), (ABSENT, absent), (SO, [label]))
        return " ".join(f"{word} {sentence(names)}" for word, names in parts if names), label

    def _suspects(
        self, markers: Markers, genes: Sequence[str], candidate: int, rng: np.random.Generator
    ) -> tuple[int, int]:
        """Return the labels that all genes together speak for most and second most; doubt grows with the number."""
        places, seen = self._places(genes), self._seen[markers.kind]
        gained = (markers.if_present[:, places] - markers.if_absent[:, places]).sum(axis=1)
        score = np.where(seen, gained + self._bare[markers.kind], -np.inf)
        score = score + rng.gumbel(size=len(score)) * DOUBT * candidate * score[seen].std()
        order = np.argsort(-score, kind="stable")
        return int(order[0]), int(order[min(1, seen.sum() - 1)])

    def _places(self, genes: Sequence[str]) -> NDArray[np.int64]:
        return np.array([self._place[gene] for gene in genes], dtype=np.int64)


def _some(pool: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """Return ``count`` of the genes, in their order."""
    chosen = set(shuffled(pool, rng)[: max(count, 0)])
    return [gene for gene in pool if gene in chosen]


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
        self._known = {cell.id: {**cell.obs, **cell.condition} for cell in cells}
        self._values = {pair for known in self._known.values() for pair in known.items()}
        self._columns = {column for column, _ in self._values}
        self._alike: dict[tuple[tuple[str, str], ...], list[Cell]] = {}

    def answer(self, question: Question, candidate: int, rng: np.random.Generator) -> tuple[str, tuple[str, ...]]:
        """Return (trace, genes) for a question about a list of genes."""
        condition, gold = self._condition(question), tuple(question.gold)
        own = self._cells.get(question.example.id)
        lists = lists_shown(question).items()
        # An untreated cell may show what is asked.
        shown = {gene for name, genes in lists if name != "control" for gene in genes}
        taboo = shown if shown.isdisjoint(gold) else set()  # the rest of a cell is asked for, not what is shown of it
        given = question.example.inputs.get("length", "") if question.direction == "primal" else ""
        length = int(given) if isinstance(given, str) and given.isdecimal() else len(gold)

        genes: Sequence[str] = gold
        mistaken = candidate > 0 and rng.random() < min(0.15 + 0.2 * candidate, 0.75)
        if own is None or not condition.items() <= self._known[own.id].items() or mistaken:
            genes = self._another(condition, question.example.id, rng).genes
        elif candidate:
            genes = self._garbled(gold, min(candidate / 3, 1.0) * rng.uniform(0.4, 1.0), rng)
        # As many different genes of the vocabulary as asked for, none taboo; too short a list is filled up with any.
        names = [gene for gene in dict.fromkeys(genes) if gene in self._genes and gene not in taboo][: max(length, 1)]
        if len(names) < length:
            used = taboo | {*names}
            others = [gene for gene in self._vocabulary.genes if gene not in used]
            names += shuffled(others, rng)[: length - len(names)]
        return self._trace(condition, names, taboo, rng), tuple(names)

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
        key, wanted = tuple(sorted(condition.items())), condition.items()
        if key not in self._alike:
            self._alike[key] = [self._cells[i] for i, known in self._known.items() if wanted <= known.items()]
        for cells in (self._alike[key], self._cells.values()):
            if others := [cell for cell in cells if cell.id != but]:
                return others[rng.integers(len(others))]
        return next(iter(self._cells.values()))

    def _garbled(self, genes: Sequence[str], strength: float, rng: np.random.Generator) -> list[str]:
        """Return the list with ranks shaken and a share of the genes lost to another cell's; ``strength`` in [0, 1]."""
        own = set(genes)
        others = [gene for gene in self._another({}, "", rng).genes if gene not in own]
        replacements = iter(shuffled(others, rng))
        lost = rng.random(len(genes)) < LOSS * strength
        mixed = [next(replacements, gene) if gone else gene for gene, gone in zip(genes, lost, strict=True)]
        order = np.argsort(np.arange(len(mixed)) + rng.normal(size=len(mixed)) * strength * len(mixed) / 3)
        return [mixed[place] for place in order]

    def _trace(
        self, condition: Mapping[str, str], listed: Sequence[str], taboo: set[str], rng: np.random.Generator
    ) -> str:
        """Return the labels shown, and what is high: markers of theirs that are listed, or else others."""
        shown = [
            (kind, label)
            for kind, label in condition.items()
            if kind in self._markers and label in self._markers[kind].labels
        ][:2]
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
        return f"{opening} {sentence(_some(pool, count, rng))}"
