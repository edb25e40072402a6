"""Small sets to write in the published shape, and the one shape every loader gives."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from data_prep.datasets import find_dataset
from data_prep.h5ad.genes import mouse_symbols, to_human
from tests.refused import refused


def counts(n_cells: int, n_genes: int = 230, high: int = 9) -> np.ndarray:
    """Return cells by genes, with nearly all genes expressed in nearly all cells."""
    values = np.random.default_rng(n_cells).integers(1, high, size=(n_cells, n_genes))
    values[np.arange(n_cells), np.arange(n_cells) % n_genes] = 0
    return values


MOUSE = [name for name in sorted(mouse_symbols()) if to_human([name])[0][0]][:300]
HUMAN = [str(name) for name in to_human(MOUSE)[0]]


def gene(number: int) -> str:
    """Return a human symbol, as all human sets name their genes; of the first 300, that of the mouse's gene."""
    return HUMAN[number] if number < len(HUMAN) else f"G{number}"


@pytest.fixture
def write_table(tmp_path: Path) -> Callable[..., dict[str, Path]]:
    """Return a function that writes a text table, with commas into .csv and packed into .gz: its path by its name."""

    def write(name: str, lines: Sequence[Sequence[Any]]) -> dict[str, Path]:
        separator = "," if ".csv" in name else "\t"
        content = "".join(separator.join(map(str, line)) + "\n" for line in lines).encode()
        (tmp_path / name).write_bytes(gzip.compress(content, 1) if name.endswith(".gz") else content)
        return {name: tmp_path / name}

    return write


@pytest.fixture
def write_counts(write_table) -> Callable[..., dict[str, Path]]:
    """Return a function that writes a table of genes by cells."""

    def write(name: str, values: np.ndarray, cells: Sequence[str], genes: Sequence[str] = (), corner=("gene",)):
        lines = zip(genes or map(gene, range(values.shape[1])), values.T.tolist(), strict=True)
        return write_table(name, [[*corner, *cells], *([gene, *row] for gene, row in lines)])

    return write


def load(name: str, files: dict[str, Path], variant: str = "") -> anndata.AnnData:
    """Load a set by name, check what all sets have in common, and return an AnnData of it."""
    dataset = find_dataset(name)
    table = dataset.load(files, variant)
    (block,) = table.blocks()
    assert isinstance(block, scipy.sparse.csr_matrix)
    assert block.dtype == np.float32
    assert (block.data > 0).all()
    adata = anndata.AnnData(block, obs=table.obs, var=pd.DataFrame(index=list(table.genes)))
    assert adata.obs_names.is_unique
    assert adata.var_names.is_unique
    assert list(adata.obs.columns) == list(dataset.columns)
    assert all(type(value) is str for column in adata.obs for value in adata.obs[column])
    assert all(type(count) is int and count > 0 for count in table.drops.values())
    adata.uns.update(counts=table.counts(), drops=table.drops)
    return adata


def refuse(name: str, files: dict[str, Path]) -> None:
    """Check that files are not taken for what was published under a name."""
    with refused("not-as-published"):
        find_dataset(name).load(files)


def tally(adata: anndata.AnnData, column: str = "cell_type") -> dict[str, int]:
    """Return how many cells have each value of a column."""
    return pd.Series(adata.obs[column]).value_counts().to_dict()


class RWriter:
    """Writes numpy arrays, texts, dicts, data frames, factors and sparse matrices as R's save() does."""

    def __init__(self, version: int = 2) -> None:
        head = b"RDX%d\nX\n" % version + struct.pack(">3i", version, 0x40301, 0x20300)
        self.content = bytearray(head + (struct.pack(">i", 5) + b"UTF-8" if version == 3 else b""))
        self.symbols: list[str] = []

    def integers(self, *values: int) -> None:
        self.content += struct.pack(f">{len(values)}i", *values)

    def symbol(self, name: str) -> None:
        if name in self.symbols:
            self.integers(255 | (self.symbols.index(name) + 1) << 8)
        else:
            self.symbols.append(name)
            self.integers(1)
            self.text(name)

    def text(self, value: str | None) -> None:
        encoded = b"" if value is None else value.encode()
        self.integers(9 | 1 << 15, -1 if value is None else len(encoded))
        self.content += encoded

    def pairs(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            self.integers(2 | 1 << 10)
            self.symbol(name)
            self.item(value)
        self.integers(254)

    def item(self, value: Any, **attributes: Any) -> None:
        flags = 1 << 9 if attributes else 0
        if isinstance(value, pd.DataFrame):
            rows = {"class": list_of(["data.frame"]), "row.names": list_of(value.index)}
            return self.item({name: value[name].array for name in value}, **rows)
        if isinstance(value, dict):
            return self.item(list(value.values()), names=list_of(value), **attributes)
        if isinstance(value, pd.Categorical):
            kinds = {"levels": list_of(value.categories), "class": list_of(["factor"])}
            return self.item(value.codes.astype(int) + 1, **kinds)
        if isinstance(value, SparseWithNames):
            self.integers(25 | 1 << 16 | 1 << 9)
            matrix, names = scipy.sparse.csc_matrix(value.values), [list_of(value.rows), list_of(value.columns)]
            slots = {"i": matrix.indices, "p": matrix.indptr, "Dim": np.array(matrix.shape), "Dimnames": names}
            attributes = {**slots, "x": matrix.data.astype(float), "factors": [], "class": list_of(["dgCMatrix"])}
        elif value is None:
            self.integers(254)
        elif isinstance(value, list):
            self.integers(19 | flags, len(value))
            for one in value:
                self.item(one)
        else:
            array = np.asarray(value)
            kind, stored = {"i": (13, ">i4"), "f": (14, ">f8")}.get(array.dtype.kind, (16, ""))
            self.integers(kind | flags, len(array))
            for one in () if stored else array:
                self.text(one)
            self.content += array.astype(stored).tobytes() if stored else b""
        if attributes:
            self.pairs(attributes)
        return None


def list_of(names: Any) -> np.ndarray:
    return np.array(list(names), dtype=object)


class SparseWithNames(NamedTuple):
    """What R calls a dgCMatrix."""

    values: Any
    rows: Sequence[str]
    columns: Sequence[str]


@pytest.fixture
def save_r(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes objects by name as R's save() does."""

    def save(name: str, pack: Callable[[bytes], bytes] = gzip.compress, version: int = 2, **objects: Any) -> Path:
        writer = RWriter(version)
        writer.pairs(objects)
        (tmp_path / name).write_bytes(pack(bytes(writer.content)))
        return tmp_path / name

    return save
