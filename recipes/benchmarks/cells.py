"""Cells to sentences: this project against the package cell2sentence, and a file larger than memory.

Run by recipes/benchmark_cells.sh. Every measurement is a process of its own, so that none inherits another's memory.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import platform
import resource
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from toy_cells import SEED, adata_of, gene_names, some_rows, toy_cells

TOP = 64
REPEATS, MOST_REPEATS = 3, 20
ENOUGH = 3.0  # seconds of repeats: what takes a moment is repeated more often
PATIENCE = 20.0  # seconds after which nothing is repeated
ROWS = {"theirs": "cell2sentence", "ours": "ours, the same sentences", "ours_top": f"ours, the first {TOP} genes"}


def theirs(adata: Any) -> list[str]:
    """Return the sentences that cell2sentence's own, unmodified function makes of an AnnData."""
    from cell2sentence.utils import generate_sentences

    # Of the vocabulary, names by how many cells express them, sentences depend on the names alone.
    vocabulary = dict.fromkeys(adata.var_names, 1)
    with redirect_stderr(io.StringIO()):  # its progress bar and its remark about the shape
        sentences: list[str] = generate_sentences(adata, vocabulary, random_state=SEED)
    return sentences


def ours(adata: Any, top: int) -> list[str]:
    """Return our sentences of an AnnData, ties by name."""
    from data_prep.cells import rank_cells

    return rank_cells(adata, source="toy", top=top, min_genes=1).sentences()


def ours_with_their_ties(matrix: Any, names: list[str]) -> list[str]:
    """Return our sentences of a matrix, with equal values in the order that cell2sentence's seeded shuffle gives them.

    It shuffles the genes of one cell after the other with the global random state. The same shuffles, drawn here,
    become the places among equals: each row is ranked by its own order of genes.
    """
    from sklearn.utils import shuffle

    from data_prep.ranking import rank_rows

    state = np.random.RandomState(SEED)  # the same stream as the other package
    sentences = []
    for row in range(matrix.shape[0]):
        columns = shuffle(matrix[row].indices, random_state=state)
        ties = np.full(matrix.shape[1], -1, np.int32)
        ties[columns] = np.arange(len(columns), dtype=np.int32)
        (ranked,), _ = rank_rows(matrix[row], ties, len(columns))
        sentences.append(" ".join(names[columns[place]] for place in ranked))
    return sentences


def cpu_seconds(action: Callable[[], Any]) -> float:
    """Return the least processor time of a few repeats: what one core needs, whoever else uses the machine."""
    taken: list[float] = []
    while len(taken) < REPEATS or (sum(taken) < ENOUGH and len(taken) < MOST_REPEATS):
        start = time.process_time()
        action()
        taken.append(time.process_time() - start)
        if sum(taken) > PATIENCE:
            break
    return min(taken)


def equality(genes: int, per_cell: int) -> dict[str, Any]:
    """Return whether both make the same sentences: where no values tie, and where many do but by one rule."""
    names = gene_names(genes)
    untied, tied = toy_cells(200, genes, per_cell, counts=False), toy_cells(200, genes, per_cell)
    return {
        "without ties": ours(adata_of(untied, names), per_cell) == theirs(adata_of(untied, names)),
        "with ties": ours_with_their_ties(tied, names) == theirs(adata_of(tied, names)),
        "cells": 200,
    }


def speed(cells: int, genes: int, per_cell: int) -> dict[str, Any]:
    """Return the processor seconds of both, on the same matrix in the same process, and of only reading its bytes."""
    matrix = toy_cells(cells, genes, per_cell)
    adata = adata_of(matrix, gene_names(genes))
    ours(adata[:2].copy(), TOP)  # compiled before the clock runs
    return {
        "cells": cells,
        "non_zeros": int(matrix.nnz),
        "theirs": cpu_seconds(lambda: theirs(adata)),
        "ours": cpu_seconds(lambda: ours(adata, per_cell)),
        "ours_top": cpu_seconds(lambda: ours(adata, TOP)),
        "reading": cpu_seconds(lambda: (matrix.data.view(np.int32).max(), matrix.indices.max())),
    }


def memory(who: str, cells: int, genes: int, per_cell: int) -> float:
    """Return the peak memory of one conversion above what stood before it, in MB."""
    adata = adata_of(toy_cells(cells, genes, per_cell), gene_names(genes))

    def convert(part: Any) -> list[str]:
        return theirs(part) if who == "theirs" else ours(part, per_cell if who == "ours" else TOP)

    convert(adata[:2].copy())
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
    before = _status("VmRSS")
    convert(adata)
    return (_status("VmHWM") - before) / 1e3


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


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
    rng = np.random.default_rng(SEED)
    with h5py.File(path, "a") as file:
        if "X" in file:
            del file["X"]
        group = file.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": (cells, genes)})
        group["indptr"] = np.arange(cells + 1, dtype=np.int64) * per_cell
        data = group.create_dataset("data", (cells * per_cell,), np.float32)
        indices = group.create_dataset("indices", (cells * per_cell,), np.int32)
        for first in range(0, cells, 4000):
            stop = min(first + 4000, cells)
            part = slice(first * per_cell, stop * per_cell)
            indices[part], data[part] = some_rows(stop - first, genes, per_cell, rng)
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
    quiet = {"initializer": warnings.simplefilter, "initargs": ("ignore",)}
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), **quiet) as pool:
        return pool.submit(measurement, *arguments).result()


def main(settings: argparse.Namespace) -> int:
    """Measure everything, print tables, write the figures; return 1 if a promise is not kept."""
    console = Console() if sys.stdout.isatty() else Console(width=120)
    shape = genes, per_cell = settings.genes, settings.per_cell
    equal, sizes = measured(equality, *shape), []
    table = Table(title=f"Cells to sentences, one core, {per_cell} of {genes} genes expressed", title_justify="left")
    for column in ("cells", "non-zeros", "", "cells/s", "ns/non-zero", "times faster", "x reading", "extra MB"):
        table.add_column(column, justify="left" if not column else "right")
    for cells in settings.sizes:
        size = measured(speed, cells, *shape)
        size["extra_mb"] = {who: measured(memory, who, cells, *shape) for who in ROWS}
        sizes.append(size)
        for who, title in ROWS.items():
            table.add_row(
                f"{cells:,}" if who == "theirs" else "",
                f"{size['non_zeros']:,}" if who == "theirs" else "",
                title,
                f"{cells / size[who]:,.0f}",
                f"{size[who] / size['non_zeros'] * 1e9:.1f}",
                f"{size['theirs'] / size[who]:.1f}",
                f"{size[who] / size['reading']:.0f}",
                f"{size['extra_mb'][who]:,.0f}",
            )
        table.add_section()
    console.print(table)
    console.print(
        f"Same sentences, {equal['cells']} cells: without ties {_yes(equal['without ties'])}, "
        f"with ties in cell2sentence's seeded order {_yes(equal['with ties'])}"
    )
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
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    found = {"machine": machine, "sizes": sizes, "equal": equal, "file": file}
    settings.out.joinpath("cells.json").write_text(json.dumps(found, indent=1) + "\n")
    kept = {
        "equal sentences": equal["without ties"] and equal["with ties"],
        "ten times cell2sentence": all(size["theirs"] >= 10 * size["ours"] for size in sizes),
        "under 2 GB": file["peak_mb"] < 2000,
    }
    for promise, good in kept.items():
        console.print(f"{promise}: {_yes(good)}")
    return 0 if all(kept.values()) or not settings.strict else 1


def _yes(good: bool) -> str:
    return "[green]yes[/]" if good else "[red]NO[/]"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["all"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", required=True)
    for name in ("genes", "per-cell", "file-cells", "file-genes"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--file-density", type=float, required=True)
    parser.add_argument("--strict", type=int, default=1)
    sys.exit(main(parser.parse_args()))
