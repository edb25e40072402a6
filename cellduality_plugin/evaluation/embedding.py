"""The declared space of all distances: PCA of cell sentences unless another is asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.import_paths import load_class

PCA_SPACE = "pca"

_DENSE_AT_MOST = 20_000_000  # entries: 160 MB of doubles
_CHUNK = 1024


def rank_profile(top: int) -> NDArray[np.float64]:
    """Return the weight of ranks 1 .. ``top``: 1 - log(rank) / log(top + 1), falling from 1 to just above 0.

    Log-expression falls about linearly with log rank; a gene outside the sentence weighs 0.
    """
    return np.asarray(1.0 - np.log(np.arange(1, top + 1)) / np.log(top + 1))


def cell_matrix(cells: Sequence[Sequence[str]], genes: Sequence[str], top: int) -> csr_matrix:
    """Return cells x ``genes``: the :func:`rank_profile` of each gene's rank, 0 for genes a cell does not list.

    ``cells`` are ranked genes, descending, unique; ranks past ``top`` are ignored. ``genes``, the vocabulary, are the
    order of the columns; a KeyError if a cell lists another.
    """
    column = {gene: index for index, gene in enumerate(genes)}
    profile = rank_profile(top)
    columns = [column[gene] for cell in cells for gene in cell[:top]]
    starts = np.cumsum([0, *(min(len(cell), top) for cell in cells)])
    weights = np.concatenate([np.empty(0), *(profile[: len(cell)] for cell in cells)])
    return csr_matrix((weights, np.asarray(columns, dtype=np.int64), starts), shape=(len(cells), len(genes)))


def profile_name(top: int) -> str:
    """Return :func:`rank_profile` as it is printed beside what is measured gene by gene."""
    return f"1 - log(rank)/log({top + 1})"


class Embedding(ABC):
    """A map from cell sentences to points. One's own is a subclass, opened as ``module:Class``.

    Such a class is called with the real training cells (ranked genes), the genes of the vocabulary and, by name, the
    ``seed``. It sees no other cells.
    """

    genes: tuple[str, ...]  # the vocabulary
    top: int  # the length of a real cell sentence at the most
    name: str  # the space as it is printed beside every distance

    @abstractmethod
    def __call__(self, cells: Sequence[Sequence[str]]) -> NDArray[np.float64]:
        """Return the points of ``cells`` (ranked genes, descending, unique): cells x dimensions, also of no cells."""


class PcaEmbedding(Embedding):
    """Principal components of the :func:`cell_matrix` of three real training cells or more, else a CellDualityError.

    It has fewer dimensions than ``components`` where there are fewer cells or genes. The seed is for the iterative
    solver that large matrices need; small ones are decomposed exactly.
    """

    def __init__(
        self, cells: Sequence[Sequence[str]], genes: Sequence[str], *, components: int = 30, seed: int = 0
    ) -> None:
        from sklearn.decomposition import PCA

        if len(cells) < 3:
            what = f"{len(cells)} real training cells, a PCA needs 3"
            raise CellDualityError(what, code="no-cells", where="cells.jsonl", hint="prepare the data again")
        self.genes, self.top = tuple(genes), max(map(len, cells))
        matrix = cell_matrix(cells, genes, self.top)
        dimensions = min(components, len(cells) - 1, len(genes) - 1)
        if matrix.shape[0] * matrix.shape[1] <= _DENSE_AT_MOST:
            self._pca = PCA(dimensions, svd_solver="full").fit(matrix.toarray())
        else:
            self._pca = PCA(dimensions, svd_solver="arpack", random_state=seed).fit(matrix)
        self.name = f"PCA({dimensions}) of {profile_name(self.top)}, fitted on {len(cells)} real training cells"

    def __call__(self, cells: Sequence[Sequence[str]]) -> NDArray[np.float64]:
        matrix = cell_matrix(cells, self.genes, self.top)
        starts = range(0, len(cells), _CHUNK)  # a dense chunk at a time bounds the memory
        parts = [self._pca.transform(matrix[start : start + _CHUNK].toarray()) for start in starts]
        return np.concatenate([np.empty((0, self._pca.n_components_)), *parts])


def open_embedding(
    space: str, cells: Sequence[Sequence[str]], genes: Sequence[str], *, components: int = 30, seed: int = 0
) -> Embedding:
    """Return the space that ``space`` names, of real training cells and the genes of the vocabulary.

    ``"pca"``; the folder of an scGPT checkpoint (args.json, vocab.json, best_model.pt); or an :class:`Embedding` of
    one's own as ``module:Class`` or ``file.py:Class``. A CellDualityError if it cannot be opened.
    """
    if space == PCA_SPACE:
        return PcaEmbedding(cells, genes, components=components, seed=seed)
    if (Path(space) / "args.json").is_file():
        from cellduality_plugin.evaluation.scgpt import ScgptEmbedding

        return ScgptEmbedding(Path(space), genes, top=max(map(len, cells), default=1))
    if ":" not in space:
        hint = "give pca, the folder of an scGPT checkpoint (args.json, vocab.json, best_model.pt), or module:Class"
        raise CellDualityError(f"no embedding {space!r}", code="unknown-embedding", where="embedding", hint=hint)
    own: Any = load_class(space, Embedding, what="embedding", where="embedding")
    found: Embedding = own(cells, genes, seed=seed)
    return found
