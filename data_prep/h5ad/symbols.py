"""What gene names are: symbols or Ensembl ids, of a human or of a mouse."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

from cellduality_plugin.errors import CellDualityError
from data_prep.h5ad.orthologues import human_symbols, mouse_symbols

Species: TypeAlias = Literal["human", "mouse"]
Kind: TypeAlias = Literal["human", "mouse", "ensembl", "prefixed", "other"]

SPECIES: tuple[Species, ...] = ("human", "mouse")

FEW_KNOWN = 20
"""With fewer recognised symbols nothing is said of the species."""

MIXED = 0.05
"""The share of recognised symbols that the other species may have: transgenes and spike-ins are no mixture."""

_ENSEMBL = re.compile(r"ENS(?:[A-Z]{3})?G\d{11}(?:\.\d+)?")
_GENOME = re.compile(r"(GRC[hm]\d\d|hg\d\d|mm\d\d?)_+(?=\w)", re.IGNORECASE)


def symbol_kind(name: str) -> Kind:
    """Return what a gene's name is.

    Examples
    --------
    >>> [symbol_kind(name) for name in ("CD3E", "Cd3e", "ENSG00000198851.5", "mm10_Cd3e", "G17")]
    ['human', 'mouse', 'ensembl', 'prefixed', 'other']
    """
    human, mouse = name in human_symbols(), name in mouse_symbols()
    if human != mouse:  # a few symbols, such as C3, are spelled alike in both and tell nothing
        return "human" if human else "mouse"
    if _ENSEMBL.fullmatch(name):
        return "ensembl"
    return "prefixed" if _GENOME.match(name) else "other"


def guess_species(names: Iterable[str]) -> Species | None:
    """Return the species that nearly all recognised symbols are of; None for too few of them or a mixture.

    Examples
    --------
    >>> guess_species(["Cd3e", "Cd19"]) is None
    True
    """
    found = Counter(map(symbol_kind, names))
    known = found["human"] + found["mouse"]
    for species in SPECIES:
        if known >= FEW_KNOWN and found[species] >= (1 - MIXED) * known:
            return species
    return None


def symbol_columns(table: Mapping[str, Iterable[object]]) -> list[str]:
    """Return the columns of ``table`` (of ``var``) that look like gene symbols: a third of them are recognised.

    Examples
    --------
    >>> symbol_columns({"feature_name": ["CD3E", "CD19", "LYZ"], "chromosome": ["11", "16", "12"]})
    ['feature_name']
    """
    chosen = []
    for column, values in table.items():
        kinds = [symbol_kind(str(value)) for value in values]
        if kinds and 3 * sum(kind in SPECIES for kind in kinds) >= len(kinds):
            chosen.append(column)
    return chosen


def check_species(
    names: Sequence[str], declared: Species | None = None, *, where: str = "var", columns: Sequence[str] = ()
) -> Species | None:
    """Return the species of the genes: the declared one, or what their names tell, or None.

    Parameters
    ----------
    names
        Gene names.
    declared
        What the user says they are.
    where
        The file, for the message.
    columns
        The columns of ``var`` that look like symbols, for the message.

    Raises
    ------
    CellDualityError
        If most names are Ensembl ids, carry the name of a genome, mix human and mouse symbols, or are of another
        species than the declared one.
    """
    found = Counter(map(symbol_kind, names))
    if 2 * found["ensembl"] > len(names):
        example = next(name for name in names if symbol_kind(name) == "ensembl")
        known = f"one of: {', '.join(columns)}" if columns else "a column of var with symbols (none here looks like it)"
        raise CellDualityError(
            f"{found['ensembl']} of {len(names)} gene names are Ensembl ids ({example}), not symbols",
            where=where,
            mend=f"use --gene-symbols with {known}",
        )
    if found["prefixed"]:
        _refuse_prefixes(names, where)
    known_names = found["human"] + found["mouse"]
    if known_names >= FEW_KNOWN and min(found["human"], found["mouse"]) > MIXED * known_names:
        raise CellDualityError(
            f"mixed species: {found['human']} human and {found['mouse']} mouse gene symbols",
            where=where,
            mend="keep the cells and genes of one species",
        )
    guess = guess_species(names)
    if declared and guess and guess != declared:
        raise CellDualityError(
            f"{declared} genes are declared, but {found[guess]} of {len(names)} are {guess} symbols",
            where=where,
            mend=f"use --species {guess}",
        )
    return declared or guess


def _refuse_prefixes(names: Sequence[str], where: str) -> None:
    genomes = Counter(match.group() for match in map(_GENOME.match, names) if match)
    if 2 * genomes.total() <= len(names):
        return
    shown = " and ".join(sorted(genomes))
    if len(genomes) > 1:
        what, mend = f"mixed species: gene names start with {shown}", "keep the cells and genes of one genome"
    else:
        what = f"gene names start with the name of a genome, {shown}"
        mend = f"adata.var_names = adata.var_names.str.removeprefix({shown!r})"
    raise CellDualityError(what, where=where, mend=mend)
