"""Mouse genes as human ones, by a frozen table that ships with its provenance."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from cellduality_plugin.errors import CellDualityError

TABLE = "mouse_human_orthologues.tsv.gz"

NO_ORTHOLOGUE = "mouse gene without a human orthologue in the table"
SEVERAL_ORTHOLOGUES = "mouse gene whose human orthologue is not one to one"
SHARED_ORTHOLOGUE = "mouse gene that another gene of the file shares its human orthologue with"


def to_human(names: Sequence[str]) -> tuple[list[str | None], dict[str, int]]:
    """Return (the human symbol of every name or None, how many names have none by reason).

    Parameters
    ----------
    names
        Mouse gene symbols in the case of the table (``Cd3e``).

    Notes
    -----
    One-to-one orthologues only, in both directions: a gene with several, or that shares its own, has no one human name
    whose expression it could stand for. Counts are therefore never summed and never copied. Where two names of one
    file still reach the same human gene, neither is kept. The table: see :func:`provenance`.

    Examples
    --------
    >>> to_human(["Cd3e", "Trp53", "Cd8b1", "Gm10001"])[0]
    ['CD3E', 'TP53', None, None]
    """
    one, other = _table()
    human = [one.get(name) for name in names]
    reached = Counter(name for name in human if name is not None)
    drops: Counter[str] = Counter()
    for place, (mouse, name) in enumerate(zip(names, human, strict=True)):
        if name is None:
            drops[SEVERAL_ORTHOLOGUES if mouse in other else NO_ORTHOLOGUE] += 1
        elif reached[name] > 1:
            drops[SHARED_ORTHOLOGUE] += 1
            human[place] = None
    return human, dict(drops)


@cache
def human_symbols() -> frozenset[str]:
    """Return the human symbols of the table."""
    one, other = _table()
    return frozenset(one.values()).union(*other.values())


@cache
def mouse_symbols() -> frozenset[str]:
    """Return the mouse symbols of the table."""
    one, other = _table()
    return frozenset(one).union(other)


def provenance() -> dict[str, Any]:
    """Return where the table comes from: origin, date, hashes, what was changed, licence, citation.

    Examples
    --------
    >>> provenance()["rows"] > 20_000
    True
    """
    text = _folder().joinpath(TABLE.replace(".tsv.gz", ".json")).read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


@cache
def _table() -> tuple[dict[str, str], dict[str, set[str]]]:
    """Return (human by mouse symbol where they are one to one, human symbols by mouse symbol where they are not)."""
    content = _folder().joinpath(TABLE).read_bytes()
    if hashlib.sha256(content).hexdigest() != provenance()["sha256"]:
        raise CellDualityError("the table of orthologues was changed", where=TABLE, mend="install cellduality again")
    rows = [line.split("\t") for line in gzip.decompress(content).decode("utf-8").splitlines()[1:]]
    pairs = [(mouse, human) for mouse, human, kind in rows if kind == "one2one"]
    # Ensembl tells genes apart by their ids; a few symbols stand for two of them.
    by_mouse, by_human = Counter(mouse for mouse, _ in pairs), Counter(human for _, human in pairs)
    one = {mouse: human for mouse, human in pairs if by_mouse[mouse] == by_human[human] == 1}
    other: dict[str, set[str]] = {}
    for mouse, human, _ in rows:
        if mouse not in one:
            other.setdefault(mouse, set()).add(human)
    return one, other


def _folder() -> Any:
    return resources.files("data_prep.h5ad").joinpath("data")
