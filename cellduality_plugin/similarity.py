"""How alike two ranked gene lists (or two labels) are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def exact_match(reference: object, candidate: object) -> float:
    """Return 1.0 if the two are equal, else 0.0 (Eq. 2, section 3.4.1). Best value 1."""
    return float(reference == candidate)


def rank_weights(genes: Sequence[str]) -> dict[str, float]:
    """Return {gene: 1 / rank}, ranks from 1; a duplicate counts at its first position."""
    weights: dict[str, float] = {}
    for rank, gene in enumerate(genes, start=1):
        weights.setdefault(gene, 1.0 / rank)
    return weights


def rank_weighted_jaccard(reference: Sequence[str], candidate: Sequence[str]) -> float:
    r"""Return the Rank-Weighted Jaccard Similarity of two ranked gene lists, in [0, 1]. Best value 1.

    .. math:: RWJS(c^*, c) = \frac{\sum_{g \in S^* \cap S} (w(g, c^*) + w(g, c)) / 2}
                                  {\sum_{g \in S^*} w(g, c^*) + \sum_{g \in S \setminus S^*} w(g, c)}

    with :math:`w(g, c) = 1 / rank(g, c)`, ranks from 1. The lists c* and c, ``reference`` and ``candidate``, are in
    descending order of expression; duplicates count at their first position.

    It is 0 when nothing is shared (or the candidate is empty), 1 when the lists are equal or both empty. Not symmetric,
    and blind to a pure reordering of one set; :func:`ruzicka` and :func:`rank_biased_overlap` see order. Eq. 3 of the
    published paper (ICLR 2026), which cannot pass 1: the cap takes off what rounding adds."""
    ours, theirs = rank_weights(reference), rank_weights(candidate)
    if not ours and not theirs:
        return 1.0
    # In the order of the list: a set's order, and with it the last digit, would change from process to process.
    shared = sum((ours[gene] + weight) / 2 for gene, weight in theirs.items() if gene in ours)
    union = sum(ours.values()) + sum(weight for gene, weight in theirs.items() if gene not in ours)
    return min(1.0, shared / union)


def ruzicka(reference: Sequence[str], candidate: Sequence[str]) -> float:
    """Return the Ruzicka similarity of the 1/rank weights, in [0, 1]. Best value 1; symmetric, order-sensitive.

    The sum over all genes of the smaller weight, divided by the sum of the larger (a gene that a list lacks
    weighs 0 there). Two empty lists score 1.
    """
    ours, theirs = rank_weights(reference), rank_weights(candidate)
    genes = dict.fromkeys([*ours, *theirs])  # in the order of the lists: a set's order changes the last digit of a sum
    if not genes:
        return 1.0
    pairs = [(ours.get(gene, 0.0), theirs.get(gene, 0.0)) for gene in genes]
    return sum(min(pair) for pair in pairs) / sum(max(pair) for pair in pairs)


def rank_biased_overlap(reference: Sequence[str], candidate: Sequence[str], persistence: float = 0.9) -> float:
    """Return the extrapolated rank-biased overlap of two ranked lists, in [0, 1]. Best value 1.

    Webber, Moffat and Zobel 2010, Eq. 32 (uneven lengths). Two empty lists score 1, duplicates count at their first
    position. ``persistence`` in (0, 1) says how much the tail counts: at 0.9 the first 10 ranks hold 86 %.
    """
    ours, theirs = list(dict.fromkeys(reference)), list(dict.fromkeys(candidate))
    if not ours or not theirs:
        return float(not ours and not theirs)
    short, long = sorted((ours, theirs), key=len)
    overlap, seen_short, seen_long = [0], set[str](), set[str]()
    for depth in range(len(long)):
        seen_long.add(long[depth])
        if depth < len(short):
            seen_short.add(short[depth])
        overlap.append(len(seen_short & seen_long))
    s, total = len(short), len(long)
    p = persistence
    series = sum(overlap[d] / d * p**d for d in range(1, total + 1))
    series += sum(overlap[s] * (d - s) / (s * d) * p**d for d in range(s + 1, total + 1))
    tail = ((overlap[total] - overlap[s]) / total + overlap[s] / s) * p**total
    return min(1.0, max(0.0, (1 - p) / p * series + tail))


COMPARISONS: dict[str, Callable[[Any, Any], float]] = {
    "exact": exact_match,
    "rwjs": rank_weighted_jaccard,
    "ruzicka": ruzicka,
    "rbo": rank_biased_overlap,
}
"""The similarities by the name a configuration gives them; all but ``exact`` compare ranked lists."""
