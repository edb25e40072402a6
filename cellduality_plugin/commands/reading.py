"""The options of every command that asks a model about the cells of a file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias, get_args

import typer

from cellduality_plugin.commands.arguments import pairs
from cellduality_plugin.errors import CellDualityError

if TYPE_CHECKING:
    from cellduality_plugin.inference.model import Model

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


def load_model(folder: Path, backend: str, matrix: str = "X", species: str | None = None) -> Model:
    """Return the trained model in ``folder``, once the options that go with it are known to be possible."""
    from cellduality_plugin.inference.model import Backend, Model
    from data_prep.h5ad.genes import SPECIES

    refuse_unknown(
        ("--backend", backend, get_args(Backend)),
        ("--matrix", matrix, ("X", "raw")),
        ("--species", species, (None, *SPECIES)),
    )
    return Model.load(folder, backend=backend)  # type: ignore[arg-type]  # one of Backend, as was just seen


def refuse_unknown(*options: tuple[str, str | None, tuple[str | None, ...]]) -> None:
    """Raise if one of (flag, value, known values) has a value that is not known."""
    for flag, value, known in options:
        if value not in known:
            hint = f"use {' or '.join(filter(None, known))}"
            raise CellDualityError(f"no {flag.strip('-')} {value!r}", code="unknown-value", where=flag, hint=hint)
