"""The options of every command that asks a model about the cells of a file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, TypeAlias

import typer

from cellduality_plugin.commands.arguments import pairs
from cellduality_plugin.errors import CellDualityError

Matrix: TypeAlias = Annotated[str, typer.Option(help="X, or raw for what scanpy keeps aside.")]
Layer: TypeAlias = Annotated[str | None, typer.Option(help="The layer to read in its place.")]
GeneSymbols: TypeAlias = Annotated[str | None, typer.Option(help="The column of var with gene symbols.")]
Species: TypeAlias = Annotated[str | None, typer.Option(help="human, or mouse: its genes are mapped to human ones.")]
Column: TypeAlias = Annotated[
    list[str] | None, typer.Option(help="NAME=COLUMN of obs that the question shows, such as drug=treatment.")
]
Given: TypeAlias = Annotated[
    list[str] | None, typer.Option("--set", help='NAME=VALUE that every question shows, such as "drug=IFN-beta".')
]
Control: TypeAlias = Annotated[
    str | None, typer.Option(help='COLUMN=VALUE of obs by which untreated cells are known, such as "stim=ctrl".')
]
Batch: TypeAlias = Annotated[int, typer.Option(min=1, help="Cells that are asked together, and then kept.")]
Seed: TypeAlias = Annotated[int, typer.Option(help="Of every draw.")]


def columns_in(items: Iterable[str] | None) -> dict[str, str]:
    """Return {name: column} of ``NAME=COLUMN`` items."""
    return {name: text for item in items or [] for name, text in pairs(item, "--column").items()}


def value_in(text: str, flag: str) -> tuple[str, str]:
    """Return (name, value) of ``NAME=VALUE``; a value may hold any character.

    Examples
    --------
    >>> value_in("perturbation=drug A, 2 uM", "--set")
    ('perturbation', 'drug A, 2 uM')
    """
    name, equals, value = text.partition("=")
    if not name.strip() or not equals or not value.strip():
        raise CellDualityError(f"{text!r} is not NAME=VALUE", code="malformed", where=flag, hint="write NAME=VALUE")
    return name.strip(), value.strip()


def values_in(items: Iterable[str] | None) -> dict[str, str]:
    """Return {name: value} of the items of ``--set``."""
    return dict(value_in(item, "--set") for item in items or [])
