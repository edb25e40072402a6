"""Marker genes of the labels, from differential expression on the labelled training cells alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.vocabulary import Vocabulary

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

SURE = 2.0  # the z of a marker, at least; about one gene in forty reaches it by chance
FEWEST = 5  # markers that a label has nevertheless, as far as any gene speaks for it
GENES_AT_ONCE = 512  # held as a dense matrix of cells by genes while they are tested
PRIOR = 0.5  # cells with the gene, and as many without it, that every label is given before counting (Jeffreys)

Evidence = tuple[tuple[str, float], ...]  # genes with their weights, the largest first
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Markers:
    """What genes say about the ``labels`` of one ``kind``, a label set of the vocabulary.

    ``if_present`` and ``if_absent`` are labels by genes of the vocabulary: the natural logarithm of how much likelier
    the gene's presence (absence) is in cells of the label than in all others. 0 for a label without cells.
    """

    kind: str
    labels: tuple[str, ...]
    present: Mapping[str, Evidence]  # by label: genes whose presence speaks for it, with their ``if_present``
    absent: Mapping[str, Evidence]  # by label: markers of others whose absence speaks for it, with their ``if_absent``
    if_present: Floats
    if_absent: Floats


def find_markers(cells: Sequence[Cell], vocabulary: Vocabulary, *, top: int = 40) -> dict[str, Markers]:
    """Return the markers of every label set that one of the labelled training ``cells`` has a label of, by kind.

    A label keeps ``top`` genes of either evidence, chosen by the tie-corrected Wilcoxon rank-sum test of one label
    against the rest, on rank scores. A label of a single cell cannot be tested, nor can the only label of a kind: its
    markers are the genes of its cells with the largest log-ratios, those high in the cells first. Equal scores are in
    the vocabulary's order.
    """
    place = {gene: column for column, gene in enumerate(vocabulary.genes)}
    found: dict[str, Markers] = {}
    for kind, labels in vocabulary.labels.items():
        if not vocabulary.tables(kind):
            continue
        row = {label: number for number, label in enumerate(labels)}
        values = [cell.condition.get(kind, cell.obs.get(kind, "")) for cell in cells]
        chosen = [(cell, row[value]) for cell, value in zip(cells, values, strict=True) if value in row]
        if chosen:
            scores = rank_scores([cell for cell, _ in chosen], place)
            codes = np.array([code for _, code in chosen])
            found[kind] = _markers(kind, labels, vocabulary.genes, scores, codes, top)
    return found


def rank_scores(cells: Sequence[Cell], place: Mapping[str, int]) -> csr_matrix:
    """Return cells by genes: 1 for a cell's first gene, falling evenly to 1/n for its last, 0 for genes not listed."""
    from scipy.sparse import csr_matrix

    entries = [
        (row, place[gene], 1 - rank / len(cell.genes))
        for row, cell in enumerate(cells)
        for rank, gene in enumerate(cell.genes)
        if gene in place
    ]
    rows, columns, values = zip(*entries, strict=True) if entries else ((), (), ())
    return csr_matrix((np.array(values, dtype=np.float32), (rows, columns)), shape=(len(cells), len(place)))


def _markers(
    kind: str, labels: tuple[str, ...], genes: tuple[str, ...], scores: csr_matrix, codes: NDArray[np.int64], top: int
) -> Markers:
    if_present, if_absent = _log_ratios(scores, codes, len(labels))
    merit = _z_scores(scores, codes, len(labels))
    untested = np.isnan(merit).any(axis=1)
    # Of the genes of a lone label one is as present as the other: their ranks within its cells decide.
    merit[untested] = (if_present * _sums(scores, codes, len(labels)))[untested]
    least = np.where(untested, 0.0, SURE)
    chosen = [_largest(merit[code], if_present[code], top, least[code]) for code in range(len(labels))]

    def evidence(weight: Floats, places: NDArray[np.int64]) -> Evidence:
        return tuple((genes[place], float(weight[place])) for place in places.tolist())

    present, absent = {}, {}
    for code, label in enumerate(labels):
        present[label] = evidence(if_present[code], chosen[code])
        of_others = np.zeros(len(genes))
        for other, theirs in enumerate(chosen):
            if other != code:
                of_others[theirs] = if_absent[code, theirs]
        absent[label] = evidence(if_absent[code], _largest(of_others, of_others, top))
    return Markers(kind, labels, present, absent, if_present, if_absent)


def _sums(scores: csr_matrix, codes: NDArray[np.int64], count: int) -> Floats:
    """Return labels by genes: the sum over the cells of each label."""
    return np.stack([np.asarray(scores[codes == code].sum(axis=0)).ravel() for code in range(count)])


def _log_ratios(scores: csr_matrix, codes: NDArray[np.int64], count: int) -> tuple[Floats, Floats]:
    """Return (log-ratio of presence, of absence), each labels by genes."""
    having = _sums(scores > 0, codes, count)
    size: NDArray[np.int64] = np.bincount(codes, minlength=count).reshape(-1, 1)
    inside = (having + PRIOR) / (size + 2 * PRIOR)
    outside = (having.sum(axis=0) - having + PRIOR) / (size.sum() - size + 2 * PRIOR)
    known = np.broadcast_to(size > 0, having.shape)
    return np.log(inside / outside) * known, np.log((1 - inside) / (1 - outside)) * known


def _z_scores(scores: csr_matrix, codes: NDArray[np.int64], count: int) -> Floats:
    """Return labels by genes: the rank-sum test's z of a label against the rest; NaN where it cannot be tested."""
    from scipy.stats import mannwhitneyu, norm

    found = np.full((count, scores.shape[1]), np.nan)
    sizes = np.bincount(codes, minlength=count)
    columns = scores.tocsc()
    for code in np.flatnonzero((sizes > 1) & (sizes < len(codes))):
        for first in range(0, scores.shape[1], GENES_AT_ONCE):
            part = slice(first, first + GENES_AT_ONCE)
            block = columns[:, part].toarray()
            inside, outside = block[codes == code], block[codes != code]
            with np.errstate(invalid="ignore", divide="ignore"):  # of a gene that no cell has, all are tied
                test = mannwhitneyu(inside, outside, method="asymptotic", use_continuity=False)
            side = np.sign(test.statistic - len(inside) * len(outside) / 2)
            found[code, part] = side * np.nan_to_num(norm.isf(test.pvalue / 2))
    return found


def _largest(merit: Floats, weight: Floats, top: int, least: float = 0.0) -> NDArray[np.int64]:
    """Return the places of the ``top`` largest merits, merit and weight both positive; the largest weight first.

    Merits below ``least`` are among them only where there are fewer than :data:`FEWEST` others.
    """
    usable = np.flatnonzero((merit > 0) & (weight > 0))
    count = min(top, max(np.count_nonzero(merit[usable] >= least), FEWEST))
    best = usable[np.argsort(-merit[usable], kind="stable")[:count]]
    ordered: NDArray[np.int64] = best[np.lexsort((best, -weight[best]))]
    return ordered
