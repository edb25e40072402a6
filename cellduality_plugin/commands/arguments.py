"""How values are written on the command line, and the options that several commands share."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar, get_type_hints

from rich.console import Console
from typer import Option

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.policies.settings import BACKENDS, is_address
from cellduality_plugin.reward_names import read_reward, renamed

if TYPE_CHECKING:
    from cellduality_plugin.inference.model import Model

Number = TypeVar("Number", int, float)

Data: TypeAlias = Annotated[Path, Option(help="The prepared folder (`cellduality data prepare`).")]
ConfigFile: TypeAlias = Annotated[Path | None, Option("--config", help="That of the prepared folder by default.")]
RlRows: TypeAlias = Annotated[Path | None, Option(help="The RL rows of all tasks, of which those of some are kept.")]
RolloutBatch: TypeAlias = Annotated[int, Option(min=1, help="RL rows are cut to a multiple, if there are as many.")]
Packed: TypeAlias = Annotated[Path, Option("--model", help="The folder of a trained model, as the recipes leave it.")]
Given: TypeAlias = Annotated[list[str] | None, Option("--set", help="NAME=VALUE of all questions: drug=IFN-beta.")]
Control: TypeAlias = Annotated[str | None, Option(help="COLUMN=VALUE in obs of untreated cells: stim=ctrl.")]
LabelTask: TypeAlias = Annotated[str, Option(help="The pair to ask; by default the one that names cell types.")]
Coverage: TypeAlias = Annotated[float, Option(min=0.0, max=0.999, help="Of sets of labels; 0: no sets.")]
Batch: TypeAlias = Annotated[int, Option(min=1, help="Cells that are asked together, and then kept.")]
Seed: TypeAlias = Annotated[int, Option(help="Of every random choice.")]
_BACKENDS = "transformers; vllm, faster on a GPU (else `cellduality-cpu`); or http://HOST:8000/v1#NAME of vLLM servers"
Backend: TypeAlias = Annotated[str, Option(help=_BACKENDS)]
MaxLen: TypeAlias = Annotated[int, Option(help="Context in tokens.")]
MaxNewTokens: TypeAlias = Annotated[int, Option(help="Tokens of a response, at most.")]
TensorParallel: TypeAlias = Annotated[int, Option(min=1, help="GPUs of one engine.")]


def pairs(text: str, flag: str, default: str | None = None) -> dict[str, str]:
    """Return {key: value} of ``key=value,key=value``; a key alone has the ``default``, if there is one."""
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
    """Return the names between commas."""
    return tuple(name for item in text.split(",") if (name := item.strip()))


def numbers_in(text: str, flag: str, kind: Callable[[str], Number], least: Number, most: float) -> tuple[Number, ...]:
    """Return the numbers between commas, each from ``least`` to ``most``."""
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
    """
    found = dict.fromkeys(names, text.strip()) if text.strip().isdecimal() else pairs(text, flag, "")
    for name, number in found.items():
        if (name not in names and name not in known) or not number.isdecimal():
            what = f"{'='.join(filter(None, (name, number)))!r} is neither a number nor SET=NUMBER"
            hint = f"write a number for all sets, or one for each of {', '.join(names)}"
            raise CellDualityError(what, code="malformed", where=flag, hint=hint)
    return {name: int(number) for name, number in found.items() if name in names}


def values_in(items: Iterable[str] | None, flag: str) -> dict[str, str]:
    """Return {name: value} of ``NAME=VALUE`` items; a value may hold any character."""
    found = {}
    for item in items or ():
        name, _, value = map(str.strip, item.partition("="))
        if not name or not value:
            raise CellDualityError(f"{item!r} is not NAME=VALUE", code="malformed", where=flag, hint="write NAME=VALUE")
        found[name] = value
    return found


def folders(items: Iterable[str] | None, flag: str) -> dict[str, Path]:
    """Return {name: folder} of ``NAME=FOLDER`` items."""
    return {name: Path(folder) for name, folder in values_in(items, flag).items()}


def refuse_unknown(*options: tuple[str, str | None, tuple[str | None, ...]]) -> None:
    """Raise if one of (flag, value, known values) has a value that is not known."""
    for flag, value, known in options:
        if value not in known:
            hint = f"use {' or '.join(filter(None, known))}"
            raise CellDualityError(f"no {flag.strip('-')} {value!r}", code="unknown-value", where=flag, hint=hint)


def wide_console(width: int = 400) -> Console:
    """Return a console on which no table is folded on its way into a file: a pipe has no width."""
    return Console(width=None if Console().is_terminal else width)


@dataclass(frozen=True)
class Reading:
    """How a file is read and a model is asked about it: each is an option of a command under :func:`reads_cells`."""

    backend: Backend = "transformers"
    matrix: Annotated[str, Option(help="X, or raw for what scanpy keeps aside.")] = "X"
    layer: Annotated[str | None, Option(help="The layer to read in its place.")] = None
    gene_symbols: Annotated[str | None, Option(help="The column of var with gene symbols.")] = None
    species: Annotated[str | None, Option(help="human, or mouse: its genes are mapped to human ones.")] = None
    column: Annotated[list[str] | None, Option(help="NAME=COLUMN of obs for the question: drug=treatment.")] = None
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

    refuse_backend(backend)
    return model.Model.load(folder, backend=backend)


def refuse_backend(backend: str) -> None:
    """Raise if ``--backend`` is neither one of ours nor the address of a server."""
    if not is_address(backend):
        refuse_unknown(("--backend", backend, BACKENDS))
