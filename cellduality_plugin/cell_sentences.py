"""Cells as ranked gene lists: the cell sentence of the paper (section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Cell:
    """One cell as its ranked genes, with what is known of it."""

    id: str  # data set and barcode, e.g. ``"pbmc68k/AAAGCCTG-1"``
    genes: tuple[str, ...]  # the top-K expressed genes, descending, unique, all expressed
    # Annotations by column, e.g. ``{"cell_type": "CD19+ B"}``: known of labelled cells only.
    obs: Mapping[str, str] = field(default_factory=dict)
    # What the experimenter set, and therefore knows of every cell, e.g. ``{"perturbation": "cytokine IFN-beta"}``.
    condition: Mapping[str, str] = field(default_factory=dict)
    # The genes of the untreated cell it is paired with, in the order of ``genes``; empty for cells without a pair.
    control: tuple[str, ...] = ()

    def value(self, column: str) -> str:
        """Return the value of ``column``, of the condition or else of the annotations; KeyError if in neither."""
        return self.condition[column] if column in self.condition else self.obs[column]

    def stripped(self, columns: Sequence[str]) -> Cell:
        """Return the cell with ``columns`` alone; ``"control"`` among them stands for the cell it is paired with."""
        named = [column for column in columns if column != "control"]
        condition = {column: self.condition[column] for column in named if column in self.condition}
        obs = {column: self.obs[column] for column in named if column not in condition}
        return Cell(self.id, self.genes, obs, condition, self.control if "control" in columns else ())


def sentence(genes: Sequence[str]) -> str:
    """Return the cell sentence: gene names in order, one space between."""
    return " ".join(genes)


def hide_genes(
    genes: Sequence[str], fraction: float, rng: np.random.Generator
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return (observed, hidden): a random ``fraction`` of the genes is hidden, both parts keep their order.

    At least one gene is observed and at least one is hidden (a cell needs two genes).
    """
    count = min(max(1, round(fraction * len(genes))), len(genes) - 1)
    hidden = set(rng.choice(len(genes), size=count, replace=False).tolist())
    return (
        tuple(gene for place, gene in enumerate(genes) if place not in hidden),
        tuple(gene for place, gene in enumerate(genes) if place in hidden),
    )
