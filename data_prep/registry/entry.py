"""What the registry knows of one published set of cells."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from cellduality_plugin.errors import CellDualityError

if TYPE_CHECKING:
    from anndata import AnnData

Species: TypeAlias = Literal["human", "mouse"]
Variant: TypeAlias = Literal["as_published", "corrected"]

COLUMNS = ("cell_type", "tissue", "donor", "drug", "sensitivity", "exposure", "perturbation", "dose", "cell_line")
"""The columns of ``obs`` that a loader may fill; a loaded set has no other."""


@dataclass(frozen=True)
class RemoteFile:
    """A file on a public server.

    Parameters
    ----------
    url
        Where it is.
    name
        What it is called in the cache. It is unpacked if ``url`` ends with .gz and this does not.
    sha256, md5
        The checksum its publisher states, as hex digits; empty where none is stated. It is never made up: the
        hash of the first download is recorded in the cache instead, and checked from then on.
    size
        In bytes, where the publisher states it.
    member
        The one file to take out of it if ``url`` is a zip or tar archive.
    """

    url: str
    name: str
    sha256: str = ""
    md5: str = ""
    size: int | None = None
    member: str = ""


@dataclass(frozen=True)
class PackageMember:
    """A file inside a Python distribution, which the package registry serves.

    Parameters
    ----------
    distribution, version
        The exact release. An installed distribution is used whatever its version, if it has the file.
    kind
        Whether the file is in the wheel or only in the source distribution.
    member
        Its path in the archive; in a source distribution below the leading folder.
    """

    distribution: str
    version: str
    kind: Literal["wheel", "sdist"]
    member: str

    @property
    def name(self) -> str:
        """The file's own name."""
        return PurePosixPath(self.member).name

    @property
    def path(self) -> str:
        """The file's full path in the archive."""
        return self.member if self.kind == "wheel" else f"{self.distribution}-{self.version}/{self.member}"


@dataclass(frozen=True)
class CollectionFile:
    """The .h5ad file of one data set in a CELLxGENE collection, whose address changes with every revision.

    Parameters
    ----------
    collection
        The collection's id.
    title
        The data set's title in it.
    name
        What the file is called in the cache.
    """

    collection: str
    title: str
    name: str


@dataclass(frozen=True)
class UserFile:
    """A file nobody serves at a fixed address: the user puts it into the cache.

    Parameters
    ----------
    name
        What it has to be called.
    origin
        Where to get it, or how to make it.
    """

    name: str
    origin: str


FileSource: TypeAlias = RemoteFile | PackageMember | CollectionFile | UserFile


@dataclass(frozen=True)
class Split:
    """How a set is split into training, validation and test cells.

    Parameters
    ----------
    kind
        ``"instructcell"``: :func:`data_prep.instructcell_split.instructcell_split`; ``"fractions"``: seeded, by
        class; ``"held_out"``: values of ``column`` are kept out of training.
    column, held_out
        For ``"held_out"``: which column of ``obs``, and which of its values; no values means that the user chooses.
    """

    kind: Literal["instructcell", "fractions", "held_out"]
    column: str = ""
    held_out: tuple[str, ...] = ()

    def holds_out(self, value: str) -> bool:
        """Return whether cells with this value are held out; publishers add synonyms in brackets.

        Examples
        --------
        >>> split = Split("held_out", "drug", ("Dacinostat",))
        >>> split.holds_out("Dacinostat (LAQ824)"), split.holds_out("Dacinostat"), split.holds_out("Dasatinib")
        (True, True, False)
        """
        return any(value == name or value.startswith(f"{name} (") for name in self.held_out)

    def __str__(self) -> str:
        if self.kind == "instructcell":
            return "80 / 10 / 10 at random, as InstructCell does it (seed 42)"
        if self.kind == "fractions":
            return "by class, seeded (60 / 20 / 20 by default)"
        return f"by {self.column}" + (f"; held out: {', '.join(self.held_out)}" if self.held_out else "")


@dataclass(frozen=True)
class Dataset:
    """One entry of the registry.

    Parameters
    ----------
    name, title
        The key, and what people call the set.
    species, tissue, modality
        What was measured and how.
    sources
        Where its files are.
    licence, citation
        The terms its publisher states, and what to cite, with a DOI.
    loader
        ``"module:function"``, imported on use; called with the files by name and the variant.
    columns
        Which of :data:`COLUMNS` the loader fills.
    tasks
        The tasks the set serves.
    cells, test_cells
        The published size and test size; None where none is published.
    split
        How it is split.
    correction
        What the variant "corrected" does otherwise than "as_published"; empty if they are the same.
    notes
        The trap, and whatever else a user should know.
    coarse_types
        The coarse type of each cell type, shared with other sets; empty: no counterpart elsewhere.
    ready
        The column of ``obs`` that the loader reads of an .h5ad file the user has ready in place of ``sources``, see
        :func:`data_prep.download.fetching.ready_file`; empty: there has to be a download.
    """

    name: str
    title: str
    species: Species
    tissue: str
    modality: str
    sources: tuple[FileSource, ...]
    licence: str
    citation: str
    loader: str
    columns: tuple[str, ...]
    tasks: tuple[str, ...]
    split: Split
    cells: int | None = None
    test_cells: int | None = None
    correction: str = ""
    notes: str = ""
    coarse_types: Mapping[str, str] = field(default_factory=dict, hash=False)
    ready: str = ""

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The variants that differ, the default last."""
        return ("as_published", "corrected") if self.correction else ("as_published",)

    @property
    def default_variant(self) -> Variant:
        """What :meth:`load` gives unless told otherwise."""
        return self.variants[-1]

    def load(self, files: Mapping[str, Path], variant: str = "") -> AnnData:
        """Return the cells in the one shape that all loaders share.

        ``X`` is sparse by row and holds what ``uns["expression"]`` says; ``obs`` holds :attr:`columns` as text;
        ``uns`` has the ``dataset``, ``variant``, ``species`` and, in ``drops``, what was left out by reason.

        Parameters
        ----------
        files
            Path by file name, as :func:`data_prep.download.fetching.fetch` returns them.
        variant
            ``"as_published"`` or ``"corrected"``; empty: the default. A set without a correction is the same in both.

        Raises
        ------
        CellDualityError
            If there is no such variant, or a file is missing or not of the published shape.
        """
        variant = variant or self.default_variant
        if variant not in ("as_published", "corrected"):
            raise CellDualityError(
                f"no variant {variant!r}", where=self.name, mend="use one of: as_published, corrected"
            )
        return self.load_function()(files, variant)

    def load_function(self) -> Callable[[Mapping[str, Path], str], AnnData]:
        """Return the loader."""
        module, _, function = self.loader.partition(":")
        return cast("Callable[[Mapping[str, Path], str], AnnData]", getattr(importlib.import_module(module), function))
