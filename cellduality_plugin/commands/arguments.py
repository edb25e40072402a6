"""How values with names are written on the command line."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.reward_names import read_reward, renamed

Number = TypeVar("Number", int, float)


def pairs(text: str, flag: str, default: str | None = None) -> dict[str, str]:
    """Return {key: value} of ``key=value,key=value``; a key alone has the ``default``, if there is one.

    Examples
    --------
    >>> pairs("annotation=1,generation", "--task", "")
    {'annotation': '1', 'generation': ''}
    """
    found = {}
    for item in filter(None, text.split(",")):
        key, equals, value = item.rpartition("=")
        if not equals and default is not None:
            key, value = item, default
        if not key:
            what, hint = f"{item!r} is not name=value", "write name=value,name=value"
            raise CellDualityError(what, code="malformed", where=flag, hint=hint)
        found[key.strip()] = value.strip()
    return found


def names_in(text: str) -> tuple[str, ...]:
    """Return the names between commas.

    Examples
    --------
    >>> names_in("a, b"), names_in("")
    (('a', 'b'), ())
    """
    return tuple(name for item in text.split(",") if (name := item.strip()))


def numbers_in(text: str, flag: str, kind: Callable[[str], Number], least: Number, most: float) -> tuple[Number, ...]:
    """Return the numbers between commas, each from ``least`` to ``most``.

    Examples
    --------
    >>> numbers_in("0.25, 1", "", float, 0.0, 1.0), numbers_in("", "", int, 0, 9)
    ((0.25, 1.0), ())
    """
    with contextlib.suppress(ValueError):
        found = tuple(kind(name) for name in names_in(text))
        if all(least <= number <= most for number in found):
            return found
    what, hint = f"{text!r} is not what is asked for", f"write numbers from {least:g} to {most:g}, with commas"
    raise CellDualityError(what, code="malformed", where=flag, hint=hint)


def refuse_elsewhere(result: Path, config: Path, flag: str) -> None:
    """Raise if ``result`` is to be written in another folder than the configuration it is made from."""
    if result.resolve().parent != config.resolve().parent:
        what = f"{result} is in another folder than {config.name}"
        hint = "write it beside the other: both name their files from where they are"
        raise CellDualityError(what, code="other-folder", where=flag, hint=hint)


def absolute(name: str) -> str:
    """Return ``name`` with the path of a file.py:Class made absolute, so that every worker finds it."""
    path, colon, inner = name.rpartition(":")
    return f"{Path(path).resolve()}:{inner}" if colon and path.endswith(".py") else name


def reward_of(text: str, flag: str, name: Callable[[str], str] = absolute) -> str | dict[str, float]:
    """Return the reward that ``text`` writes, as settings hold it: a product of kinds, or a weighted sum of such.

    ``name`` says what a kind is called in the result.

    Examples
    --------
    >>> reward_of("duality", ""), reward_of("2*posterior*profile^0.3+duality", "")
    ('duality', {'posterior*profile^0.3': 2.0, 'duality': 1.0})
    """
    try:
        terms = read_reward(renamed(text, name))
    except CellDualityError as error:
        raise CellDualityError(error.what, code=error.code, where=flag, hint=error.hint) from error
    if len(terms) == 1 and terms[0].weight is None:
        return terms[0].product
    return {term.product: 1.0 if term.weight is None else term.weight for term in terms}


def by_name(text: str, names: Sequence[str], flag: str, known: Container[str] = ()) -> dict[str, int]:
    """Return {name: number} of ``N``, which is for all ``names``, or of ``NAME=N,...``.

    What is said of a name that is ``known`` but not of this run is left out: one setting serves several runs.

    Examples
    --------
    >>> by_name("140", ["a", "b"], ""), by_name("b=20,c=1", ["a", "b"], "", known=["c"])
    ({'a': 140, 'b': 140}, {'b': 20})
    """
    found = dict.fromkeys(names, text.strip()) if text.strip().isdecimal() else pairs(text, flag, "")
    for name, number in found.items():
        if (name not in names and name not in known) or not number.isdecimal():
            what = f"{'='.join(filter(None, (name, number)))!r} is neither a number nor SET=NUMBER"
            hint = f"write a number for all sets, or one for each of {', '.join(names)}"
            raise CellDualityError(what, code="malformed", where=flag, hint=hint)
    return {name: int(number) for name, number in found.items() if name in names}


def wide_console() -> Console:
    """Return a console on which no table is folded on its way into a file: a pipe has no width."""
    return Console(width=None if Console().is_terminal else 400)


def value_in(text: str, flag: str) -> tuple[str, str]:
    """Return (name, value) of ``NAME=VALUE``; a value may hold any character.

    Examples
    --------
    >>> value_in("perturbation=drug A, 2 uM", "--set")
    ('perturbation', 'drug A, 2 uM')
    """
    name, _, value = map(str.strip, text.partition("="))
    if not name or not value:
        raise CellDualityError(f"{text!r} is not NAME=VALUE", code="malformed", where=flag, hint="write NAME=VALUE")
    return name, value


def values_in(items: Iterable[str] | None, flag: str) -> dict[str, str]:
    """Return {name: value} of an option that is given once for each."""
    return dict(value_in(item, flag) for item in items or ())


def folders(items: Iterable[str] | None, flag: str) -> dict[str, Path]:
    """Return {name: folder} of ``NAME=FOLDER`` items."""
    return {name: Path(folder) for name, folder in values_in(items, flag).items()}


def refuse_unknown(*options: tuple[str, str | None, tuple[str | None, ...]]) -> None:
    """Raise if one of (flag, value, known values) has a value that is not known."""
    for flag, value, known in options:
        if value not in known:
            hint = f"use {' or '.join(filter(None, known))}"
            raise CellDualityError(f"no {flag.strip('-')} {value!r}", code="unknown-value", where=flag, hint=hint)


def held_out_values(
    items: Iterable[str], sources: Sequence[str], known: Iterable[str]
) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return {set: {column: values}} of ``[SET:]COLUMN=VALUE`` items; ``known`` sets of other runs are left out."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for item in items:
        name = next((source for source in (*sources, *known) if item.startswith(f"{source}:")), "")
        column, equals, value = item[len(name) + bool(name) :].partition("=")
        if not equals or not column or not value or ":" in column or (not name and len(sources) > 1):
            what, hint = f"{item!r} is not SET:COLUMN=VALUE", f"name one of {', '.join(sources)} first"
            raise CellDualityError(what, code="malformed", where="--held-out", hint=hint)
        columns = found.setdefault(name or sources[0], {})
        columns[column] = (*columns.get(column, ()), value)
    return {name: columns for name, columns in found.items() if name in sources}
