"""The data files that R writes with save() (.RData, .rda), read without R.

The format is that of R Internals, "Serialization Formats": XDR of version 2 or 3, packed or not, without functions and
environments. The package rdata reads the same; it needs xarray, and Python 3.11.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from data_prep.loading.dataset import not_published

SYMBOL, LIST, CALL, CHARACTERS, STRINGS, S4, ALTERNATIVE, REFERENCE = 1, 2, 6, 9, 16, 25, 238, 255
NUMBERS = {10: ">i4", 13: ">i4", 14: ">f8", 15: ">c16", 24: "u1"}  # logical, integer, double, complex, raw
LISTS = {19, 20}
NOTHINGS = {0, 241, 242, 250, 251, 252, 253, 254}  # NULL, the standing environments, missing and unbound values
HAS_ATTRIBUTES, HAS_TAG, LATIN1 = 1 << 9, 1 << 10, 1 << 14

PACKED = {b"\x1f\x8b": gzip.decompress, b"BZ": bz2.decompress, b"\xfd7": lzma.decompress}
BROKEN = (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, zlib.error, lzma.LZMAError)

Found = TypeVar("Found")


@dataclass(frozen=True)
class RObject:
    """A value of R, and its attributes by name; of an S4 object its slots.

    Numbers are an array (the lowest int32 is an integer's NA), strings a list (None is NA), a list a list of these
    objects, one symbol or string text; None stands for what holds no data.
    """

    value: Any = None
    attributes: Mapping[str, RObject] = field(default_factory=dict)

    def __getitem__(self, name: str) -> RObject:
        """Return the element of a list, the column of a data frame or the attribute called ``name``."""
        names = self.attributes["names"].value if "names" in self.attributes else []
        found: RObject = self.value[names.index(name)] if name in names else self.attributes[name]
        return found

    def texts(self) -> list[str]:
        """Return a vector as texts, a factor by its levels; NA is empty."""
        if "levels" in self.attributes:
            levels = ["", *self["levels"].texts()]
            return [levels[max(0, int(code))] for code in self.value]
        return ["" if value is None else value if isinstance(value, str) else f"{value:.15g}" for value in self.value]

    def matrix(self) -> tuple[Any, list[str], list[str]]:
        """Return (the numbers as scipy's CSC, names of the rows, names of the columns) of a dgCMatrix or matrix."""
        import scipy.sparse

        if "p" in self.attributes:
            parts = tuple(self[slot].value.astype(kind) for slot, kind in (("x", "f8"), ("i", "i4"), ("p", "i4")))
            values = scipy.sparse.csc_matrix(parts, shape=tuple(self["Dim"].value.tolist()))
            values.check_format(full_check=True)
            rows, columns = self["Dimnames"].value
        else:
            values = scipy.sparse.csc_matrix(self.value.astype("f8").reshape(self["dim"].value.tolist(), order="F"))
            rows, columns = self["dimnames"].value
        return values, rows.texts(), columns.texts()


def read_r(path: Path, take: Callable[[RObject], Found]) -> Found:
    """Return what ``take`` finds among the objects that R's save() put into a file."""
    try:
        content = path.read_bytes()
        stream = _Stream(PACKED.get(content[:2], bytes)(content))
        if stream.take(7) not in (b"RDX2\nX\n", b"RDX3\nX\n"):
            raise ValueError("not the binary format of save()")
        if stream.numbers(">i4", 3)[0] == 3:  # then the encoding of strings that do not state theirs follows
            stream.take(stream.integer())
        return take(stream.item())
    except (*BROKEN, RecursionError) as error:
        raise not_published(path, error) from error


class _Stream:
    """The items of a file, one after the other."""

    def __init__(self, content: bytes) -> None:
        self.content, self.place = content, 0
        self.symbols: list[RObject] = []  # what a later reference may mean

    def take(self, count: int) -> bytes:
        if not 0 <= count <= len(self.content) - self.place:
            raise EOFError(f"{count} bytes are announced, {len(self.content) - self.place} are left")
        self.place += count
        return self.content[self.place - count : self.place]

    def integer(self) -> int:
        return int.from_bytes(self.take(4), "big", signed=True)

    def length(self) -> int:
        short = self.integer()
        return short if short >= 0 else (self.integer() << 32) + self.integer()

    def numbers(self, kind: str, count: int) -> Any:
        return np.frombuffer(self.take(count * np.dtype(kind).itemsize), kind)

    def items(self, count: int) -> list[RObject]:
        return [self.item() for _ in range(count)]

    def item(self) -> RObject:
        flags = self.integer()
        kind = flags & 255
        if kind in NOTHINGS:
            return RObject()
        if kind == REFERENCE:
            return self.symbols[(flags >> 8 or self.integer()) - 1]
        if kind == SYMBOL:
            self.symbols.append(self.item())
            return self.symbols[-1]
        if kind in (LIST, CALL):
            return self.pairs(flags)
        if kind == ALTERNATIVE:
            return self.alternative(*self.items(3))
        value = self.value(kind, flags)
        return RObject(value, _attributes(self.item()) if flags & HAS_ATTRIBUTES else {})

    def value(self, kind: int, flags: int) -> Any:
        if kind == CHARACTERS:
            length = self.integer()
            encoding = "latin-1" if flags & LATIN1 else "utf-8"
            return None if length == -1 else self.take(length).decode(encoding, errors="replace")
        if kind in NUMBERS:
            return self.numbers(NUMBERS[kind], self.length())
        if kind == STRINGS:
            return [one.value for one in self.items(self.length())]
        if kind in LISTS:
            return self.items(self.length())
        if kind == S4:
            return None
        raise ValueError(f"type {kind} is not known")

    def pairs(self, flags: int) -> RObject:
        """Return a list that is chained in pairs; of a call the names and values of its arguments."""
        self.items(bool(flags & HAS_ATTRIBUTES))
        name, value = self.item().value if flags & HAS_TAG else "", self.item()
        rest = self.item()
        values, names = (rest.value, rest["names"].value) if "names" in rest.attributes else ([], [])
        return RObject([value, *values], {"names": RObject([name, *names])})

    def alternative(self, info: RObject, state: RObject, attributes: RObject) -> RObject:
        """Return a vector of which R 3.5 and later write how to make it."""
        name = str(info.value[0].value)
        if name in ("compact_intseq", "compact_realseq"):
            count, first, step = state.value
            value: Any = first + step * np.arange(int(count))
        elif name == "deferred_string":
            value = state.value[0].texts()
        elif name.startswith("wrap_"):
            value = state.value[0].value
        else:
            raise ValueError(f"vectors of class {name} are not known")
        return RObject(value, _attributes(attributes))


def _attributes(pairs: RObject) -> dict[str, RObject]:
    return dict(zip(pairs.attributes["names"].value, pairs.value, strict=True)) if pairs.value else {}
