"""Spaces of distances: PCA, one's own, and scGPT: a tiny checkpoint against the same arithmetic in numpy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.evaluation import embedding
from tests.refused import refused

GENES = tuple("ABCDEFGHIJ")


def cells(count: int, seed: int = 0) -> list[tuple[str, ...]]:
    rng = np.random.default_rng(seed)
    return [tuple(rng.permutation(GENES)[:6].tolist()) for _ in range(count)]


def test_matrix_places_every_gene_and_ignores_ranks_past_the_top() -> None:
    matrix = embedding.cell_matrix([("C", "A", "B"), (), ("B",)], ("A", "B", "C"), top=2).toarray()
    first, second = embedding.rank_profile(2)
    np.testing.assert_allclose(matrix, [[second, 0, first], [0, 0, 0], [0, first, 0]])
    assert embedding.rank_profile(3) == pytest.approx([1, 0.5, 0.208], abs=1e-3)
    with pytest.raises(KeyError):
        embedding.cell_matrix([("Z",)], GENES, 3)


def test_a_pca_keeps_distances_and_points_depend_on_no_other_cell_no_chunk_and_no_solver(monkeypatch) -> None:
    real, new = cells(40), cells(7, seed=1)
    full, small = (embedding.PcaEmbedding(real, GENES, components=count) for count in (30, 4))
    dense = pdist(embedding.cell_matrix(real, GENES, 6).toarray())
    # Ten genes of which every cell holds the same ranks: the weights sum to a constant, so nine dimensions hold all.
    np.testing.assert_allclose(pdist(full(real)), dense)
    assert (pdist(small(real)) <= dense + 1e-9).all()
    together = small(new)
    np.testing.assert_allclose(together, np.concatenate([small([cell]) for cell in new]))
    monkeypatch.setattr(embedding, "_CHUNK", 3)
    np.testing.assert_allclose(together, small(new))
    assert small([]).shape == (0, 4)
    monkeypatch.setattr(embedding, "_DENSE_AT_MOST", 0)
    iterative = embedding.PcaEmbedding(real, GENES, components=4, seed=5)(new)
    np.testing.assert_allclose(np.abs(together), np.abs(iterative), atol=1e-6)


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
    space = embedding.open_embedding("pca", cells(20), GENES, components=4)
    np.testing.assert_array_equal(space(cells(5)), embedding.PcaEmbedding(cells(20), GENES, components=4)(cells(5)))
    path = tmp_path / "own.py"
    path.write_text(OWN)
    own = embedding.open_embedding(f"{path}:Lengths", cells(20), GENES, seed=7)
    assert own(cells(3)).tolist() == [[6.0], [6.0], [6.0]]
    assert (own.name, own.top, own.genes) == ("lengths, seed 7", 6, GENES)
    with pytest.raises(CellDualityError):
        embedding.open_embedding(f"{path}:Open", cells(20), GENES)
    with refused("unknown-embedding"):
        embedding.open_embedding("umap", cells(20), GENES)
    with refused("no-cells"):
        embedding.open_embedding("pca", cells(2), GENES)


SYMBOLS = tuple(f"G{number}" for number in range(12))
SIZE, HEADS, HIDDEN, LAYERS = 8, 2, 16, 2
ARGUMENTS = {"embsize": SIZE, "nheads": HEADS, "d_hid": HIDDEN, "nlayers": LAYERS}
TOKENS = {"<pad>": 0, "<cls>": 1, "<eoc>": 2, **{gene: 3 + place for place, gene in enumerate(SYMBOLS[:10])}}


def scgpt_weights() -> dict[str, torch.Tensor]:
    """A checkpoint with the names it is published with, those of flash attention and of heads that embed no cell."""
    layer = {
        "self_attn.Wqkv": (3 * SIZE, SIZE), "self_attn.out_proj": (SIZE, SIZE), "linear1": (HIDDEN, SIZE),
        "linear2": (SIZE, HIDDEN), "norm1": (SIZE,), "norm2": (SIZE,),
    }  # fmt: skip
    parts = {"encoder.enc_norm": (SIZE,), "value_encoder.norm": (SIZE,), "value_encoder.linear1": (SIZE, 1)}
    parts |= {"value_encoder.linear2": (SIZE, SIZE)}
    parts |= {f"transformer_encoder.layers.{n}.{name}": shape for n in range(LAYERS) for name, shape in layer.items()}
    shapes = {"encoder.embedding.weight": (len(TOKENS), SIZE), "flag_encoder.weight": (2, SIZE)}
    for name, shape in parts.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    rng = np.random.default_rng(0)
    return {name: torch.from_numpy(rng.normal(size=shape)).float() for name, shape in shapes.items()}


@pytest.fixture
def scgpt(tmp_path: Path) -> Path:
    found = tmp_path / "scGPT_tiny"
    found.mkdir()
    (found / "args.json").write_text(json.dumps({**ARGUMENTS, "pad_value": -2}))
    (found / "vocab.json").write_text(json.dumps(TOKENS))
    torch.save(scgpt_weights(), found / "best_model.pt")
    return found


# Of cells of 1, 4 and 10 genes, worked out once in numpy by the arithmetic of the published architecture.
BY_HAND = [
    [-0.11721, 0.45528, 0.77008, -0.04718, 0.20506, 0.05675, 0.08934, -0.36122],
    [-0.10822, 0.44817, 0.78292, -0.04674, 0.20009, 0.05586, 0.09236, -0.34728],
    [-0.09194, 0.4579, 0.78327, -0.04943, 0.17652, 0.05063, 0.10156, -0.34911],
]


def test_the_embedding_is_that_of_the_architecture(scgpt: Path) -> None:
    space = embedding.open_embedding(str(scgpt), [SYMBOLS[:10]], SYMBOLS)
    assert (space.top, space.genes) == (10, SYMBOLS)
    cells = [SYMBOLS[:count] for count in (1, 4, 10)]
    found = space(cells * 30)
    np.testing.assert_allclose(found[:3], BY_HAND, atol=2e-5)
    np.testing.assert_allclose(found, np.tile(found[:3], (30, 1)), atol=1e-6)
    assert space([]).shape == (0, SIZE)


def test_genes_that_scgpt_does_not_know_are_left_out_and_counted(scgpt: Path) -> None:
    space = embedding.ScgptEmbedding(scgpt, SYMBOLS, top=10)
    np.testing.assert_allclose(space([("G11", "G1", "G10", "G2")]), space([("G1", "G2")]), atol=1e-6)
    assert space.name.startswith("scGPT <cls> (8) of scGPT_tiny ")
    assert "10 of 12 genes known" in space.name
    assert np.isfinite(space([("G11",)])).all()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("args.json", "{"),
        ("args.json", '{"embsize": 8}'),
        ("args.json", json.dumps({**ARGUMENTS, "input_emb_style": "category"})),
        ("best_model.pt", {"encoder.embedding.weight": torch.zeros(len(TOKENS), SIZE + 1)}),
        ("vocab.json", "[]"),
        ("vocab.json", '{"G1": 0}'),
        ("vocab.json", '{"<cls>": 0, "MS4A1": 1}'),
        ("best_model.pt", None),
        ("best_model.pt", [1, 2]),
        ("best_model.pt", {"other": torch.zeros(1)}),
    ],
)
def test_what_is_wrong_with_a_checkpoint_is_told_with_its_file(scgpt: Path, file: str, content) -> None:
    if content is None:
        (scgpt / file).unlink()
    elif isinstance(content, str):
        (scgpt / file).write_text(content)
    else:
        torch.save(content, scgpt / file)
    with refused("wrong-checkpoint") as error:
        embedding.ScgptEmbedding(scgpt, SYMBOLS, top=10)
    assert error.value.where == str(scgpt / file)


def test_values_are_binned_evenly_from_the_highest_to_the_lowest() -> None:
    for count in (64, 500):
        found = embedding.value_bins(count)
        assert (len(found), found[0], found[-1], (np.diff(found) <= 0).all()) == (count, 50, 1, True)
        assert np.ptp(np.bincount(found)[1:]) <= 10
