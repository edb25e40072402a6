"""What gene names are (symbols or Ensembl ids, of a human or of a mouse), and the human names of mouse genes."""

from __future__ import annotations

import gzip
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Literal, TypeAlias

from cellduality_plugin.errors import CellDualityError

Species: TypeAlias = Literal["human", "mouse"]
Kind: TypeAlias = Literal["human", "mouse", "ensembl", "other"]

SPECIES: tuple[Species, ...] = ("human", "mouse")
FEW_KNOWN = 20  # with fewer recognised symbols the species is not checked
FEW_NAMES = 100  # with fewer it is not asked if they are symbols at all, unless a column has some or they are numbers
HARDLY_ANY = 0.05  # the share of names, case ignored, that symbols are at least known of
GENE_FEATURES = frozenset({"gene expression", "gene"})  # of `feature_types` (10x), `feature_biotype` (CELLxGENE)
MIXED = 0.05  # the share of recognised symbols that the other species may have: transgenes and spike-ins are no mixture

_ENSEMBL = re.compile(r"ENS(?:[A-Z]{3})?G\d{11}(?:\.\d+)?")
_NO_GENE = re.compile(r"ERCC-\d{5}|.+_TotalSeq[A-D]?\w*|(?:hto|adt)[-_.].*|hashtag[-_.]?\d*", re.IGNORECASE)
_GENOME = re.compile(r"(GRC[hm]\d\d|hg\d\d|mm\d\d?)_+(?=\w)", re.IGNORECASE)

TABLE = "mouse_human_orthologues.tsv.gz"
NO_ORTHOLOGUE = "mouse gene without a human orthologue in the table"
SEVERAL_ORTHOLOGUES = "mouse gene whose human orthologue is not one to one"
SHARED_ORTHOLOGUE = "mouse gene that another gene of the file shares its human orthologue with"


def is_feature(name: str, kind: object = None, of_genes: bool = False) -> bool:
    """Return whether what a file measures is no gene: an antibody, a hashtag, a guide, a peak, a spike-in.

    ``kind`` is what the file calls it, which counts where ``of_genes`` says that it calls others genes.
    """
    return (of_genes and str(kind).lower() not in GENE_FEATURES) or _NO_GENE.fullmatch(name) is not None


def symbol_kind(name: str) -> Kind:
    """Return what a gene's name is."""
    human, mouse = name in human_symbols(), name in mouse_symbols()
    if human != mouse:  # a few symbols, such as C3, are spelled alike in both
        return "human" if human else "mouse"
    return "ensembl" if _ENSEMBL.fullmatch(name) else "other"


def symbol_columns(table: Mapping[str, Iterable[object]]) -> list[str]:
    """Return the columns of ``table`` (of ``var``) that look like gene symbols: a third of them are recognised."""
    kinds = {column: [symbol_kind(str(value)) for value in values] for column, values in table.items()}
    return [name for name, found in kinds.items() if found and 3 * sum(kind in SPECIES for kind in found) >= len(found)]


def check_species(
    names: Sequence[str], declared: Species | None = None, *, where: str = "var", columns: Sequence[str] = ()
) -> None:
    """Refuse gene names that would be misread; ``columns`` are those of ``var`` that look like symbols, for the hint.

    A CellDualityError is raised if most names are Ensembl ids or carry the name of a genome, if hardly any is a symbol,
    or if they mix human and mouse symbols, or are of another species than the ``declared`` one.
    """
    found = Counter(map(symbol_kind, names))
    known = found["human"] + found["mouse"]
    spelt = sum(name.casefold() in _folded() for name in names)
    foreign = spelt < HARDLY_ANY * len(names)
    numbers = 2 * sum(name.replace(".", "", 1).isdigit() for name in names) > len(names)
    other: Species | None = ("mouse" if declared == "human" else "human") if declared else None
    genomes = Counter(match.group() for match in map(_GENOME.match, names) if match)
    if 2 * found["ensembl"] > len(names):
        example = next(name for name in names if symbol_kind(name) == "ensembl")
        code, what = "ensembl-ids", f"{found['ensembl']} of {len(names)} gene names are Ensembl ids ({example})"
        choice = f"one of: {', '.join(columns)}" if columns else "a column of var with symbols (none looks like it)"
        hint = f"use --gene-symbols with {choice}"
    elif 2 * genomes.total() > len(names) and len(genomes) > 1:
        code, what = "mixed-species", f"mixed species: gene names start with {' and '.join(sorted(genomes))}"
        hint = "keep the cells and genes of one genome"
    elif 2 * genomes.total() > len(names):
        (genome,) = genomes
        code, what = "genome-prefix", f"gene names start with the name of a genome, {genome}"
        hint = f"adata.var_names = adata.var_names.str.removeprefix({genome!r})"
    elif foreign and (columns or numbers or len(names) >= FEW_NAMES):
        code, what = "no-symbols", f"{spelt} of {len(names)} gene names are known gene symbols ({', '.join(names[:3])})"
        hint = f"use --gene-symbols with one of: {', '.join(columns)}" if columns else "name genes by their symbols"
    elif known < FEW_KNOWN:
        return
    elif min(found["human"], found["mouse"]) > MIXED * known:
        what = f"mixed species: {found['human']} human and {found['mouse']} mouse gene symbols"
        code, hint = "mixed-species", "keep the cells and genes of one species"
    elif other and found[other] >= (1 - MIXED) * known:
        what = f"{declared} genes are declared, but {found[other]} of {len(names)} are {other} symbols"
        code, hint = "wrong-species", f"use --species {other}"
    else:
        return
    raise CellDualityError(what, code=code, where=where, hint=hint)


def to_human(names: Sequence[str]) -> tuple[list[str | None], dict[str, int]]:
    """Return (the human symbol of every name or None, how many names have none by reason).

    ``names`` are mouse symbols in the case of the table (``Cd3e``). Only orthologues that are one to one in both
    directions are used, so that counts are never summed and never copied; where two names reach the same human gene,
    neither is kept. The .json file beside the table says where it comes from.
    """
    one, other = _table()
    reached = Counter(map(one.get, names))
    human: list[str | None] = []
    drops: Counter[str] = Counter()
    for mouse in names:
        name = one.get(mouse)
        human.append(None if reached[name] > 1 else name)
        if name is None:
            drops[SEVERAL_ORTHOLOGUES if mouse in other else NO_ORTHOLOGUE] += 1
        elif reached[name] > 1:
            drops[SHARED_ORTHOLOGUE] += 1
    return human, dict(drops)


@cache
def _folded() -> frozenset[str]:
    return frozenset(map(str.casefold, human_symbols() | mouse_symbols()))


@cache
def human_symbols() -> frozenset[str]:
    one, other = _table()
    return frozenset(one.values()).union(*other.values())


@cache
def mouse_symbols() -> frozenset[str]:
    one, other = _table()
    return frozenset(one).union(other)


@cache
def _table() -> tuple[dict[str, str], dict[str, set[str]]]:
    """Return (human by mouse symbol where they are one to one, human symbols by mouse symbol where they are not)."""
    content = resources.files("data_prep.h5ad").joinpath("data", TABLE).read_bytes()
    rows = [line.split("\t") for line in gzip.decompress(content).decode("utf-8").splitlines()[1:]]
    pairs = [(mouse, human) for mouse, human, kind in rows if kind == "one2one"]
    # A few symbols stand for two Ensembl ids.
    by_mouse, by_human = Counter(mouse for mouse, _ in pairs), Counter(human for _, human in pairs)
    one = {mouse: human for mouse, human in pairs if by_mouse[mouse] == by_human[human] == 1}
    other: dict[str, set[str]] = {}
    for mouse, human, _ in rows:
        if mouse not in one:
            other.setdefault(mouse, set()).add(human)
    return one, other
