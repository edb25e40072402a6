from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation import embedding
from cellduality_plugin.evaluation.embedding import PcaEmbedding, cell_matrix, open_embedding, rank_profile
from tests.refused import refused

GENES = tuple("ABCDEFGHIJ")


def cells(count: int, seed: int = 0) -> list[tuple[str, ...]]:
    rng = np.random.default_rng(seed)
    return [tuple(rng.permutation(GENES)[:6].tolist()) for _ in range(count)]


def test_matrix_places_every_gene_and_ignores_ranks_past_the_top() -> None:
    matrix = cell_matrix([("C", "A", "B"), (), ("B",)], ("A", "B", "C"), top=2).toarray()
    first, second = rank_profile(2)
    np.testing.assert_allclose(matrix, [[second, 0, first], [0, 0, 0], [0, first, 0]])
    assert rank_profile(3) == pytest.approx([1, 0.5, 0.208], abs=1e-3)
    with pytest.raises(KeyError):
        cell_matrix([("Z",)], GENES, 3)


def test_full_pca_keeps_distances_and_fewer_dimensions_lose_some() -> None:
    real = cells(40)
    full, small = PcaEmbedding(real, GENES, components=30), PcaEmbedding(real, GENES, components=2)
    dense = pdist(cell_matrix(real, GENES, 6).toarray())
    # Ten genes of which every cell holds the same ranks: the weights sum to a constant, so nine dimensions hold all.
    np.testing.assert_allclose(pdist(full(real)), dense)
    assert (pdist(small(real)) <= dense + 1e-9).all()


def test_points_do_not_depend_on_the_company_of_a_cell_or_on_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    space = PcaEmbedding(cells(30), GENES, components=4)
    new = cells(7, seed=1)
    together = space(new)
    np.testing.assert_allclose(together, np.concatenate([space([cell]) for cell in new]))
    monkeypatch.setattr(embedding, "_CHUNK", 3)
    np.testing.assert_allclose(together, space(new))
    assert space([]).shape == (0, 4)


def test_iterative_solver_finds_the_same_space(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = PcaEmbedding(cells(60), GENES, components=3)(cells(9, seed=1))
    monkeypatch.setattr(embedding, "_DENSE_AT_MOST", 0)
    again = PcaEmbedding(cells(60), GENES, components=3, seed=5)(cells(9, seed=1))
    np.testing.assert_allclose(np.abs(exact), np.abs(again), atol=1e-6)


OWN = """
import numpy as np
from cellduality_plugin.evaluation.embedding import Embedding

class Lengths(Embedding):
    def __init__(self, cells, genes, *, seed):
        self.genes, self.top, self.name = tuple(genes), max(map(len, cells)), f"lengths, seed {seed}"

    def __call__(self, cells):
        return np.array([[float(len(cell))] for cell in cells]).reshape(-1, 1)

class Open(Embedding):
    pass
"""


def test_spaces_are_opened_by_name(tmp_path: Path) -> None:
    space = open_embedding("pca", cells(20), GENES, components=4)
    np.testing.assert_array_equal(space(cells(5)), PcaEmbedding(cells(20), GENES, components=4)(cells(5)))
    path = tmp_path / "own.py"
    path.write_text(OWN)
    own = open_embedding(f"{path}:Lengths", cells(20), GENES, seed=7)
    assert own(cells(3)).tolist() == [[6.0], [6.0], [6.0]]
    assert (own.name, own.top, own.genes) == ("lengths, seed 7", 6, GENES)
    with pytest.raises(CellDualityError, match="__call__"):
        open_embedding(f"{path}:Open", cells(20), GENES)
    with refused("unknown-embedding"):
        open_embedding("umap", cells(20), GENES)
    with refused("no-cells"):
        open_embedding("pca", cells(2), GENES)
