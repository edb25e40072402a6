"""Cells to sentences: this project against the package cell2sentence, and a file larger than memory.

Run by recipes/benchmark_cells.sh. Every measurement is a process of its own, so that none inherits another's memory.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import re
import resource
import sys
import time
import timeit
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from shared import conclude, console, options, show

SEED, TOP = 42, 64
ROWS = {"theirs": "cell2sentence", "ours": f"ours, the first {TOP} genes"}


def blocks(cells: int, genes: int, per_cell: int) -> Iterator[tuple[slice, Any, Any]]:
    """Yield made-up cells, 4,000 at a time: (their place among all non-zeros, indices of genes, counts), flat.

    Every cell has ``per_cell`` genes, one from each of as many strata of columns; most counts are 1, as in real cells.
    """
    rng, width = np.random.default_rng(SEED), genes // per_cell
    strata = np.arange(per_cell, dtype=np.int32) * width
    for first in range(0, cells, 4000):
        shape = min(4000, cells - first), per_cell
        indices = strata + rng.integers(0, width, size=shape, dtype=np.int32)
        counts = 1 + (-np.log2(rng.random(shape, dtype=np.float32) + 1e-7) * 1.2).astype(np.int32)
        place = slice(first * per_cell, (first + shape[0]) * per_cell)
        yield place, indices.ravel(), counts.ravel().astype(np.float32)


def toy_cells(cells: int, genes: int, per_cell: int, *, ties: bool = True) -> Any:
    """Return made-up cells as an AnnData; without ``ties`` no two values of a cell are alike."""
    import anndata
    import pandas
    import scipy.sparse

    indices, data = (np.concatenate(part) for part in list(zip(*blocks(cells, genes, per_cell), strict=True))[1:])
    if not ties:
        places = np.tile(np.arange(1, per_cell + 1, dtype=np.float32), (cells, 1))
        data = np.random.default_rng(SEED).permuted(places, axis=1).ravel() / 256
    indptr = np.arange(cells + 1, dtype=np.int64) * per_cell
    matrix = scipy.sparse.csr_matrix((data, indices, indptr), shape=(cells, genes))
    matrix.has_canonical_format = True
    obs = pandas.DataFrame(index=[f"c{row}" for row in range(cells)])
    return anndata.AnnData(X=matrix, obs=obs, var=pandas.DataFrame(index=gene_names(genes)))


def gene_names(genes: int) -> list[str]:
    """Return names that sort in another order than their columns."""
    return [f"GENE{number}" for number in np.random.default_rng(SEED).permutation(genes)]


def theirs(adata: Any) -> list[str]:
    """Return the sentences that cell2sentence's own, unmodified function makes of an AnnData."""
    from cell2sentence.utils import generate_sentences

    # Of the vocabulary, names by how many cells express them, sentences depend on the names alone.
    vocabulary = dict.fromkeys(adata.var_names, 1)
    with redirect_stderr(io.StringIO()):  # its progress bar and its remark about the shape
        sentences: list[str] = generate_sentences(adata, vocabulary, random_state=SEED)
    return sentences


def ours(adata: Any) -> list[str]:
    """Return the first genes of an AnnData's cells as ours are written, ties by name."""
    from data_prep.cells import rank_cells

    ranked = rank_cells(adata, source="toy", top=TOP, min_genes=1)
    return [" ".join(ranked.genes(row)) for row in range(len(ranked))]


def ours_with_their_ties(adata: Any) -> list[str]:
    """Return the same, with equal values in the order of cell2sentence's seeded shuffle.

    It shuffles the genes of one cell after the other with the global random state. The same shuffles, drawn here,
    become the places among equals: each row is ranked by its own order of genes.
    """
    from sklearn.utils import shuffle

    from data_prep.ranking import rank_rows

    state, sentences = np.random.RandomState(SEED), []  # the same stream as the other package
    for cell in adata.X:
        columns = shuffle(cell.indices, random_state=state)
        ties = np.full(cell.shape[1], -1, np.int32)
        ties[columns] = np.arange(len(columns), dtype=np.int32)
        (ranked,), _ = rank_rows(cell, ties, TOP)
        sentences.append(" ".join(adata.var_names[columns[ranked[ranked >= 0]]]))
    return sentences


def cpu_seconds(action: Callable[[], Any]) -> float:
    """Return the least processor time of three repeats: what one core needs, whoever else uses the machine."""
    return min(timeit.repeat(action, timer=time.process_time, number=1, repeat=3))


def equality(genes: int, per_cell: int) -> dict[str, Any]:
    """Return whether sentences begin alike: where no values tie, and where many do but by one rule."""
    untied, tied = toy_cells(200, genes, per_cell, ties=False), toy_cells(200, genes, per_cell)
    begun = ([" ".join(sentence.split()[:TOP]) for sentence in theirs(cells)] for cells in (untied, tied))
    found = zip(("without ties", "with ties"), (ours(untied), ours_with_their_ties(tied)), begun, strict=True)
    return {**{name: mine == other for name, mine, other in found}, "cells": 200}


def speed(cells: int, genes: int, per_cell: int) -> dict[str, Any]:
    """Return the processor seconds of both, on the same matrix in the same process, and of only reading its bytes."""
    adata = toy_cells(cells, genes, per_cell)
    ours(adata[:2].copy())  # compiled before the clock runs
    return {
        "cells": cells,
        "non_zeros": int(adata.X.nnz),
        "theirs": cpu_seconds(lambda: theirs(adata)),
        "ours": cpu_seconds(lambda: ours(adata)),
        "reading": cpu_seconds(lambda: (adata.X.data.view(np.int32).max(), adata.X.indices.max())),
    }


def memory(who: str, cells: int, genes: int, per_cell: int) -> float:
    """Return the peak memory of one conversion above what stood before it, in MB."""
    adata, convert = toy_cells(cells, genes, per_cell), theirs if who == "theirs" else ours
    convert(adata[:2].copy())
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
    before = _status("VmRSS")
    convert(adata)
    return (_status("VmHWM") - before) / 1e3


def _status(field: str) -> int:
    [kilobytes] = re.findall(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(kilobytes)


def generate(path: Path, cells: int, genes: int, per_cell: int) -> dict[str, Any]:
    """Write an .h5ad file of counts, block by block."""
    import anndata
    import h5py
    import pandas

    from data_prep.h5ad.genes import human_symbols

    names = [*sorted(human_symbols())[: genes // 10], *gene_names(genes)][:genes]  # known for genes by some of them
    kinds = pandas.Categorical.from_codes(np.arange(cells) % 10, [f"type {kind}" for kind in range(10)])
    obs = pandas.DataFrame({"cell_type": kinds}, index=[f"c{row}" for row in range(cells)])
    anndata.AnnData(obs=obs, var=pandas.DataFrame(index=names)).write_h5ad(path)
    with h5py.File(path, "a") as file:
        if "X" in file:
            del file["X"]
        group = file.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": (cells, genes)})
        group["indptr"] = np.arange(cells + 1, dtype=np.int64) * per_cell
        data = group.create_dataset("data", (cells * per_cell,), np.float32)
        indices = group.create_dataset("indices", (cells * per_cell,), np.int32)
        for place, genes_of, counts in blocks(cells, genes, per_cell):
            indices[place], data[place] = genes_of, counts
    return {"bytes": path.stat().st_size, "non_zeros": cells * per_cell}


def convert(path: Path) -> dict[str, Any]:
    """Return what it took to turn a file into ranked cells, and the peak memory of this whole process."""
    start = time.perf_counter()
    from data_prep.cells import rank_cells
    from data_prep.h5ad.loaders import load_h5ad

    ranked = rank_cells(load_h5ad(path, "cell_type", expression="counts"), source="atlas", top=TOP)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "cells": len(ranked),
        "seconds": time.perf_counter() - start,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_mb": used.ru_maxrss / 1e3,
        "checked": ranked.cell(0).genes[:3],
    }


def measured(measurement: Callable[..., Any], *arguments: Any) -> Any:
    """Return what one measurement finds in a process of its own."""
    spawn, quiet = multiprocessing.get_context("spawn"), partial(warnings.simplefilter, "ignore")
    with ProcessPoolExecutor(1, spawn, quiet) as pool:
        return pool.submit(measurement, *arguments).result()


def rows_of(size: dict[str, Any]) -> list[dict[str, str]]:
    """Return the rows of the table about one number of cells."""
    return [
        {
            "": title,
            "cells": f"{size['cells']:,}",
            "non-zeros": f"{size['non_zeros']:,}",
            "cells/s": f"{size['cells'] / size[who]:,.0f}",
            "ns/non-zero": f"{size[who] / size['non_zeros'] * 1e9:.1f}",
            "times faster": f"{size['theirs'] / size[who]:.1f}",
            "x reading": f"{size[who] / size['reading']:.0f}",
            "extra MB": f"{size['extra_mb'][who]:,.0f}",
        }
        for who, title in ROWS.items()
    ]


def main(settings: argparse.Namespace) -> int:
    """Measure everything, print tables, write the figures; return 1 if a promise is not kept."""
    shape = genes, per_cell = settings.genes, settings.per_cell
    equal = measured(equality, *shape)
    sizes = [
        measured(speed, cells, *shape) | {"extra_mb": {who: measured(memory, who, cells, *shape) for who in ROWS}}
        for cells in settings.sizes
    ]
    show([row for size in sizes for row in rows_of(size)], f"One core, {per_cell} of {genes} genes expressed")
    path: Path = settings.out / "atlas.h5ad"
    try:
        density = round(settings.file_genes * settings.file_density)
        file = measured(generate, path, settings.file_cells, settings.file_genes, density) | measured(convert, path)
    finally:
        path.unlink(missing_ok=True)
    console.print(
        f"File of {file['cells']:,} cells x {settings.file_genes:,} genes, {file['non_zeros']:,} non-zeros, "
        f"{file['bytes'] / 1e9:.1f} GB: {file['seconds']:.0f} s ({file['cpu_seconds']:.0f} s of one core), "
        f"{file['cells'] / file['seconds']:,.0f} cells/s, peak memory {file['peak_mb']:,.0f} MB"
    )
    same, faster = equal["without ties"] and equal["with ties"], (size["theirs"] >= 10 * size["ours"] for size in sizes)
    promises = {
        f"the same first {TOP} genes, and with ties in cell2sentence's seeded order": same,
        f"the first {TOP} genes at ten times the pace of cell2sentence": all(faster),
        "under 2 GB": file["peak_mb"] < 2000,
    }
    found = {"sizes": sizes, "equal": equal, "file": file}
    return conclude(settings.out / "cells.json", found, promises, strict=bool(settings.strict))


if __name__ == "__main__":
    wanted = dict.fromkeys(("genes", "per_cell", "file_cells", "file_genes"), int)
    sys.exit(main(options(__doc__, out=Path, sizes=[int], **wanted, file_density=float, strict=1)))
