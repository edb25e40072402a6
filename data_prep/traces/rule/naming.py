"""The rule's answer to "which label?": some evidence, and what it speaks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.cell_sentences import sentence
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.traces.questions import Question
from data_prep.traces.rule.markers import Markers
from data_prep.traces.rule.shown import MAX_WORDS, POOL, cell_shown, some

PRESENT, ABSENT, SO = LABEL_WORDS = ("Present:", "Absent:", "So:")

DOUBT = 0.25
"""How much more candidate k may err than candidate k - 1 in what it suspects, in spreads of the labels' scores."""


class LabelRule:
    """Names a label: suspects one, cites evidence for it, concludes from what was cited alone."""

    def __init__(self, markers: Mapping[str, Markers], vocabulary: Vocabulary) -> None:
        self._markers, self._labels = markers, vocabulary.labels
        self._place = {gene: place for place, gene in enumerate(vocabulary.genes)}
        # What a cell without a single gene would score, and which labels any cell has.
        self._bare = {kind: found.if_absent.sum(axis=1) for kind, found in markers.items()}
        self._seen = {kind: found.if_present.any(axis=1) for kind, found in markers.items()}

    def answer(self, question: Question, kind: str, candidate: int, rng: np.random.Generator) -> tuple[str, str]:
        """Return (trace, label) for a question about a label of ``kind``; nothing of it hangs on the right label."""
        markers = self._markers.get(kind)
        if markers is None:  # no labelled cell has one: a guess
            label = some(self._labels[kind], 1, rng)[0]
            return f"{SO} {label}", label
        shown, control = cell_shown(question)
        genes = [gene for gene in shown if gene in self._place]
        suspect, rival = self._suspects(markers, genes, candidate, rng)
        room = MAX_WORDS - len(LABEL_WORDS) - len(markers.labels[suspect].split())
        n_present, n_absent = int(rng.integers(4, 7)), int(rng.integers(1, 4))

        # A marker counts half as much again; what the untreated cell shows too says half as much about what was done.
        marking = {gene for gene, _ in markers.present[markers.labels[suspect]]}
        merit = {
            gene: value * (1.5 if gene in marking else 1) / (2 if gene in control else 1)
            for gene, value in self._contrast(markers.if_present, genes, suspect, rival).items()
        }
        present = _cited(merit, min(n_present, max(room - 1, 1)), rng)
        # Of the markers of other labels that are not shown, half for what was never there.
        missing = [gene for gene, _ in markers.absent[markers.labels[suspect]] if gene not in shown]
        merit = {
            gene: value / (2 if control and gene not in control else 1)
            for gene, value in self._contrast(markers.if_absent, missing, suspect, rival).items()
        }
        absent = _cited(merit, min(n_absent, room - len(present)), rng)
        label = markers.labels[self._conclude(markers, present, absent, suspect)]
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

    def _contrast(
        self, weights: NDArray[np.float64], genes: Sequence[str], suspect: int, rival: int
    ) -> dict[str, float]:
        """Return {gene: what speaks for the suspect, and for it rather than for the rival}."""
        at = weights[:, self._places(genes)]
        return dict(zip(genes, (2 * at[suspect] - at[rival]).tolist(), strict=True))

    def _conclude(self, markers: Markers, present: Sequence[str], absent: Sequence[str], suspect: int) -> int:
        """Return the label for which the genes cited speak most; among equals the suspect."""
        score = markers.if_present[:, self._places(present)].sum(axis=1)
        score = score + markers.if_absent[:, self._places(absent)].sum(axis=1)
        return suspect if score[suspect] >= score.max() else int(np.argmax(score))

    def _places(self, genes: Sequence[str]) -> NDArray[np.int64]:
        return np.array([self._place[gene] for gene in genes], dtype=np.int64)


def _cited(merit: Mapping[str, float], count: int, rng: np.random.Generator) -> list[str]:
    """Return ``count`` of the pieces of evidence with the largest merit, the largest first."""
    pool = sorted(merit, key=lambda gene: -merit[gene])[:POOL]
    chosen = set(some(pool, count, rng))
    return [gene for gene in pool if gene in chosen]
