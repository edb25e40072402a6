"""Options that several commands share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, get_args, get_type_hints

import typer

from cellduality_plugin.commands.arguments import pairs, refuse_unknown

if TYPE_CHECKING:
    from cellduality_plugin.inference.model import Model

Trained: TypeAlias = Annotated[
    Path, typer.Option("--model", help="The folder of a trained model, as the recipes leave it.")
]
Given: TypeAlias = Annotated[
    list[str] | None, typer.Option("--set", help='NAME=VALUE that every question shows, such as "drug=IFN-beta".')
]
Control: TypeAlias = Annotated[
    str | None, typer.Option(help='COLUMN=VALUE of obs by which untreated cells are known, such as "stim=ctrl".')
]
Batch: TypeAlias = Annotated[int, typer.Option(min=1, help="Cells that are asked together, and then kept.")]
Seed: TypeAlias = Annotated[int, typer.Option(help="Of every draw.")]
Backend: TypeAlias = Annotated[
    str, typer.Option(help="transformers, in this process; or vllm, faster on a GPU (`cellduality-cpu` on a CPU).")
]
MaxLen: TypeAlias = Annotated[int, typer.Option(help="Context in tokens.")]
MaxNewTokens: TypeAlias = Annotated[int, typer.Option(help="Tokens of a response, at most.")]
TensorParallel: TypeAlias = Annotated[int, typer.Option(min=1, help="GPUs of one engine.")]


@dataclass(frozen=True)
class Reading:
    """How a file is read and a model is asked about it: each is an option of a command under :func:`reads_cells`."""

    backend: Backend = "transformers"
    matrix: Annotated[str, typer.Option(help="X, or raw for what scanpy keeps aside.")] = "X"
    layer: Annotated[str | None, typer.Option(help="The layer to read in its place.")] = None
    gene_symbols: Annotated[str | None, typer.Option(help="The column of var with gene symbols.")] = None
    species: Annotated[str | None, typer.Option(help="human, or mouse: its genes are mapped to human ones.")] = None
    column: Annotated[
        list[str] | None, typer.Option(help="NAME=COLUMN of obs that the question shows, such as drug=treatment.")
    ] = None
    batch: Batch = 64
    seed: Seed = 42

    def load(self, folder: Path) -> Model:
        """Return the trained model in ``folder``, once the options are known to be possible."""
        from data_prep.h5ad.genes import SPECIES

        refuse_unknown(("--matrix", self.matrix, ("X", "raw")), ("--species", self.species, (None, *SPECIES)))
        return load_model(folder, self.backend)

    @property
    def of_file(self) -> dict[str, Any]:
        """What :func:`data_prep.h5ad.loaders.load_h5ad` is given."""
        columns = {name: text for item in self.column or [] for name, text in pairs(item, "--column").items()}
        return {
            "matrix": self.matrix, "layer": self.layer, "gene_symbols": self.gene_symbols, "species": self.species,
            "columns": columns,
        }  # fmt: skip

    @property
    def of_draws(self) -> dict[str, int]:
        """The settings that every way to ask has."""
        return {"batch": self.batch, "seed": self.seed}


def reads_cells(command: Callable[..., None]) -> Callable[..., None]:
    """Return ``command`` with the options of :class:`Reading`, which is its last parameter, ``reading``."""

    @functools.wraps(command)
    def run(**values: Any) -> None:
        reading = Reading(**{name: values.pop(name) for name in shared})
        command(**values, reading=reading)

    shared = inspect.signature(Reading).parameters
    *own, _ = inspect.signature(command).parameters.values()
    hints = get_type_hints(command, include_extras=True) | get_type_hints(Reading, include_extras=True)
    options = [
        each.replace(annotation=hints[each.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for each in (*own, *shared.values())
    ]
    run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in options}
    return run


def load_model(folder: Path, backend: str) -> Model:
    """Return the trained model in ``folder``."""
    from cellduality_plugin.inference import model

    refuse_unknown(("--backend", backend, get_args(model.Backend)))
    return model.Model.load(folder, backend=backend)  # type: ignore[arg-type]  # one of them, as was just seen
