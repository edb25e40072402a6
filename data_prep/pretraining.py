"""Rows for a stage before the first label: training cells in both directions, under the number of their cluster."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cellduality_plugin.cell_sentences import Cell
from cellduality_plugin.tasks import TASKS
from cellduality_plugin.vocabulary import Vocabulary
from data_prep.rows import Row, sft_rows
from data_prep.splits import shuffled

PRETRAIN_FILE = "pretrain.jsonl"  # beside the other rows of a preparation, where such a stage is wanted

COMPONENTS, STARTS = 20, 4


def pretrain_rows(
    sets: Sequence[Sequence[Cell]],
    genes: Sequence[str],
    *,
    clusters: int,
    views: int,
    hidden: float,
    rng: np.random.Generator,
) -> list[Row]:
    """Return rows that know no label: each cell as an answer, and as a question for its cluster.

    They are worded as generation and annotation are, with clusters in the place of types. Of a cell its id and genes
    are read alone.

    ``sets`` are the training cells of each source: a cluster is of one source, of ``clusters`` at most, and a question
    lists those of its own source. ``genes`` are those of the vocabulary; ``views`` and ``hidden`` as in
    :func:`sft_rows`.
    """
    rows: list[Row] = []
    named = 0
    for cells in filter(None, sets):
        found = cluster_cells(cells, clusters, rng)
        names = tuple(f"cluster {number}" for number in range(named + 1, named + max(found) + 2))
        named += len(names)
        typed = [Cell(cell.id, cell.genes, {"cell_type": names[own]}) for cell, own in zip(cells, found, strict=True)]
        world = Vocabulary(tuple(genes), {"cell_type": names})
        rows += sft_rows(typed, [TASKS["conditional_cell_generation"]], world, hidden=hidden, views=views, rng=rng)
    return shuffled(rows, rng)


def cluster_cells(cells: Sequence[Cell], count: int, rng: np.random.Generator) -> list[int]:
    """Return the cluster of each cell, numbered from 0 without a gap: at most ``count``, fewer where cells are alike.

    k-means on the first components of genes weighted by 1 / log2(rank + 2), with ranks from 0.
    """
    from scipy.sparse import csr_matrix
    from sklearn.cluster import KMeans
    from sklearn.decomposition import TruncatedSVD
    from threadpoolctl import threadpool_limits

    count = min(count, len({cell.genes for cell in cells}))
    if count < 2:
        return [0] * len(cells)
    columns = {gene: place for place, gene in enumerate(sorted({gene for cell in cells for gene in cell.genes}))}
    weights = np.concatenate([1 / np.log2(np.arange(len(cell.genes)) + 2) for cell in cells])
    ends = np.cumsum([0, *(len(cell.genes) for cell in cells)])
    matrix = csr_matrix((weights, [columns[gene] for cell in cells for gene in cell.genes], ends))
    one, other = rng.integers(2**31, size=2).tolist()
    with threadpool_limits(1):  # sums of several threads differ in their last bits from run to run
        shape = TruncatedSVD(min(COMPONENTS, *matrix.shape), random_state=one).fit_transform(matrix)
        found = KMeans(count, n_init=STARTS, random_state=other).fit_predict(shape)
    return [int(own) for own in np.unique(found, return_inverse=True)[1]]
