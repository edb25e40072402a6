"""Which genes several sets share, by the names that they give them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cellduality_plugin.errors import CellDualityError
from data_prep.cells import CellTable
from data_prep.h5ad.genes import to_human

FEW_SHARED = 0.05
"""The share of the genes of the smaller of two sets that both have at least."""


def refuse_few_shared(genes: Mapping[str, Sequence[str]]) -> None:
    """Raise if two sets that train hardly share a gene: they are of two species, or name their genes in two ways."""
    for (one, first), (other, second) in itertools.combinations({name: {*of} for name, of in genes.items()}.items(), 2):
        if len(first & second) < FEW_SHARED * min(len(first), len(second)):
            examples = " and ".join(sorted(some - (first & second))[0] for some in (first, second))
            what = f"{one} and {other} share {len(first & second)} gene names ({examples})"
            hint = "prepare sets of one species that name genes alike; --species mouse maps the genes of mouse files"
            raise CellDualityError(what, code="mixed-species", where=f"sources {one}, {other}", hint=hint)


def in_names_of(genes: frozenset[str], table: CellTable, name: str) -> tuple[CellTable, dict[str, int]]:
    """Return (the table with genes named as those of a vocabulary are, how many it lost by reason).

    Mouse genes are read by their one-to-one human orthologues, if ``genes`` knows more of these. A CellDualityError is
    raised if the vocabulary knows none of them.
    """
    lost: dict[str, int] = {}
    if 2 * len(known := genes.intersection(table.genes)) < len(genes):
        human, without = to_human(table.genes)
        if len(genes.intersection(filter(None, human))) > len(known):
            table, lost = replace(table, genes=tuple(gene or "" for gene in human)), without
    if genes.isdisjoint(table.genes):
        what, hint = "none of its genes is in the vocabulary", "use sets that name genes alike"
        raise CellDualityError(what, code="no-genes", where=f"source {name}", hint=hint)
    return table, lost
