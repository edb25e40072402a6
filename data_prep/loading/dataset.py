"""The entry of a published set in the registry: what it is, whose it is, where its files are, how they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from cellduality_plugin.errors import CellDualityError
from data_prep.splits import PublishedSplit

if TYPE_CHECKING:
    from data_prep.cells import CellTable
    from data_prep.loading.draft import Draft

COLUMNS = ("cell_type", "tissue", "donor", "drug", "sensitivity", "exposure", "perturbation", "dose", "cell_line")
"""The columns of ``obs`` that a set may have."""

RESPONSE, SENSITIVITY = ("perturbation_response_generation",), ("drug_sensitivity_prediction",)
GITHUB = "https://raw.githubusercontent.com"
FIRST_TRUSTED = "not known; the hash of the first download is recorded and checked from then on"


@dataclass(frozen=True)
class RemoteFile:
    """A file on a public server, called ``name`` in the cache; unpacked if ``url`` ends with .gz and ``name`` does not.

    ``checksum`` is what the publisher states, e.g. ``"md5:d1f5..."``; empty where none is stated.
    """

    url: str
    name: str
    checksum: str = ""

    def __str__(self) -> str:
        return f"{self.url}\nchecksum: {self.checksum or FIRST_TRUSTED}"


@dataclass(frozen=True)
class PackageFile:
    """A file inside a release of a Python distribution; an installed one is used whatever its version.

    ``path`` is where the file is in the wheel, or in the source distribution below its leading folder.
    """

    distribution: str
    version: str
    kind: Literal["wheel", "sdist"]
    path: str

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name

    @property
    def release(self) -> str:
        return f"{self.distribution} {self.version} ({self.kind})"

    def __str__(self) -> str:
        return f"{self.path} in {self.release}\nchecksum: pip checks what its index states"


@dataclass(frozen=True)
class CollectionFile:
    """The .h5ad file of the data set ``title`` in a CELLxGENE collection: its address changes with every revision."""

    collection: str
    title: str
    name: str

    def __str__(self) -> str:
        return f"{self.title} of CELLxGENE collection {self.collection}\nchecksum: {FIRST_TRUSTED}"


@dataclass(frozen=True)
class UserFile:
    """A file nobody serves at a fixed address: the user puts it into the cache; ``origin`` says where to get it."""

    name: str
    origin: str

    def __str__(self) -> str:
        return f"you bring it: {self.origin}"


FileSource: TypeAlias = RemoteFile | PackageFile | CollectionFile | UserFile


def remote(folder: str, *names: str, unpack: bool = False) -> tuple[RemoteFile, ...]:
    """Return files of one folder of a server, called as they are there; with ``unpack`` without .gz."""
    return tuple(RemoteFile(f"{folder}/{name}", name.removesuffix(".gz") if unpack else name) for name in names)


def geo(accession: str, *names: str, unpack: bool = False) -> tuple[RemoteFile, ...]:
    """Return supplementary files of a series (GSE...) or sample (GSM...) of GEO."""
    kind = "series" if accession.startswith("GSE") else "samples"
    folder = f"https://ftp.ncbi.nlm.nih.gov/geo/{kind}/{accession[:-3]}nnn/{accession}/suppl"
    return remote(folder, *names, unpack=unpack)


class Files(dict[str, Path]):
    """Path by file name."""

    def __missing__(self, name: str) -> Path:
        what = f"the file {name} is missing"
        raise CellDualityError(what, code="missing-file", where=name, hint="fetch the set again")


def not_published(path: Path | str, why: str | Exception) -> CellDualityError:
    """Return the error that says why a file is not the published one."""
    why = why if isinstance(why, str) else f"{type(why).__name__}: {why}"
    what, hint = f"not the file that was published ({why[:160]})", "remove it and fetch the set again"
    return CellDualityError(what, code="not-as-published", where=str(path), hint=hint)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A published set of cells."""

    name: str = ""  # in the registry that of its module
    title: str
    tissue: str
    modality: str
    sources: tuple[FileSource, ...]
    citation: str  # with a DOI
    read: Callable[[Files, str], Draft]  # called with the files by name and the variant
    species: Literal["human", "mouse"] = "human"
    licence: str = "none stated (GEO)"  # the terms its publisher states
    columns: tuple[str, ...] = ("cell_type", "tissue")  # of COLUMNS; a tissue that `read` does not fill is the set's
    tasks: tuple[str, ...] = ("cell_type_annotation", "conditional_cell_generation")
    cells: int | None = None  # the published size
    test_cells: int | None = None  # the size of InstructCell's test set
    split: PublishedSplit = field(default_factory=PublishedSplit)  # what `data prepare` applies
    correction: str = ""  # what the variant "corrected" does otherwise than "as_published"; empty if they are the same
    notes: str = ""  # the trap, and whatever else a user should know
    coarse_types: Mapping[str, str] = field(default_factory=dict)  # shared with other sets, by label; "": in no other
    ready: str = ""  # the column of labels in a file that may stand for `sources`, see `fetching.ready_file`
    as_file: Mapping[str, Any] = field(default_factory=dict)  # how `load_h5ad` reads its one file; empty: `read` does

    def load(self, files: Mapping[str, Path], variant: str = "") -> CellTable:
        """Return the cells of ``files``, paths by name, with :attr:`columns` as text.

        ``variant`` is ``"as_published"`` or ``"corrected"``, by default the latter if they differ. A CellDualityError
        is raised if there is no such variant, or a file is missing or not of the published shape.
        """
        variant = variant or ("corrected" if self.correction else "as_published")
        if variant not in ("as_published", "corrected"):
            hint = "use one of: as_published, corrected"
            raise CellDualityError(f"no variant {variant!r}", code="unknown-variant", where=self.name, hint=hint)
        return self.read(Files(files), variant).finish(self)
