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


def test_full_pca_keeps_distances_and_fewer_dimensions_lose_some() -> None:
    real = cells(40)
    full, small = embedding.PcaEmbedding(real, GENES, components=30), embedding.PcaEmbedding(real, GENES, components=2)
    dense = pdist(embedding.cell_matrix(real, GENES, 6).toarray())
    # Ten genes of which every cell holds the same ranks: the weights sum to a constant, so nine dimensions hold all.
    np.testing.assert_allclose(pdist(full(real)), dense)
    assert (pdist(small(real)) <= dense + 1e-9).all()


def test_points_depend_on_no_other_cell_no_chunk_and_no_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    space = embedding.PcaEmbedding(cells(30), GENES, components=4)
    new = cells(7, seed=1)
    together = space(new)
    np.testing.assert_allclose(together, np.concatenate([space([cell]) for cell in new]))
    monkeypatch.setattr(embedding, "_CHUNK", 3)
    np.testing.assert_allclose(together, space(new))
    assert space([]).shape == (0, 4)
    monkeypatch.setattr(embedding, "_DENSE_AT_MOST", 0)
    iterative = embedding.PcaEmbedding(cells(30), GENES, components=4, seed=5)(new)
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


def scgpt_weights(rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """A checkpoint with the names it is published with, those of flash attention and of heads that embed no cell."""
    shapes = {"encoder.embedding.weight": (len(TOKENS), SIZE), "value_encoder.linear1.weight": (SIZE, 1)}
    shapes |= {"value_encoder.linear2.weight": (SIZE, SIZE), "flag_encoder.weight": (2, SIZE)}
    for name in ("encoder.enc_norm", "value_encoder.norm"):
        shapes |= {f"{name}.weight": (SIZE,), f"{name}.bias": (SIZE,)}
    shapes |= {f"value_encoder.linear{number}.bias": (SIZE,) for number in (1, 2)}
    own = {"self_attn.Wqkv": 3 * SIZE, "self_attn.out_proj": SIZE, "linear1": HIDDEN, "linear2": SIZE}
    for layer in range(LAYERS):
        prefix = f"transformer_encoder.layers.{layer}."
        for name, size in own.items():
            shapes |= {f"{prefix}{name}.weight": (size, HIDDEN if name == "linear2" else SIZE)}
            shapes |= {f"{prefix}{name}.bias": (size,)}
        shapes |= {f"{prefix}norm{number}.{part}": (SIZE,) for number in (1, 2) for part in ("weight", "bias")}
    return {name: torch.from_numpy(rng.normal(size=shape)).float() for name, shape in shapes.items()}


@pytest.fixture
def scgpt(tmp_path: Path) -> Path:
    found = tmp_path / "scGPT_tiny"
    found.mkdir()
    (found / "args.json").write_text(json.dumps({**ARGUMENTS, "pad_value": -2}))
    (found / "vocab.json").write_text(json.dumps(TOKENS))
    torch.save(scgpt_weights(np.random.default_rng(0)), found / "best_model.pt")
    return found


def by_hand(checkpoint: dict[str, torch.Tensor], genes: list[str]) -> np.ndarray:
    """The embedding of one cell, written out."""
    w = {name: tensor.double().numpy() for name, tensor in checkpoint.items()}

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt(centred.var(axis=-1, keepdims=True) + 1e-5)
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    values = np.array([-2.0, *embedding.value_bins(len(genes))])
    tokens = [TOKENS["<cls>"], *(TOKENS[gene] for gene in genes)]
    hidden = np.maximum(linear(values[:, None], "value_encoder.linear1"), 0)
    x = norm(w["encoder.embedding.weight"][tokens], "encoder.enc_norm")
    x = x + norm(linear(hidden, "value_encoder.linear2"), "value_encoder.norm")
    for layer in range(LAYERS):
        name = f"transformer_encoder.layers.{layer}."
        queries, keys, contents = np.split(linear(x, name + "self_attn.Wqkv"), 3, axis=1)
        heads = []
        for part in np.split(np.arange(SIZE), HEADS):
            scores = np.exp(queries[:, part] @ keys[:, part].T / np.sqrt(len(part)))
            heads.append(scores / scores.sum(axis=1, keepdims=True) @ contents[:, part])
        x = norm(x + linear(np.concatenate(heads, axis=1), name + "self_attn.out_proj"), name + "norm1")
        x = norm(x + linear(np.maximum(linear(x, name + "linear1"), 0), name + "linear2"), name + "norm2")
    return x[0] / np.linalg.norm(x[0])


def test_the_embedding_is_that_of_the_architecture(scgpt: Path) -> None:
    rng = np.random.default_rng(1)
    cells = [tuple(rng.permutation(SYMBOLS[:10])[: rng.integers(1, 11)].tolist()) for _ in range(70)]
    checkpoint = torch.load(scgpt / "best_model.pt", weights_only=True)
    space = embedding.open_embedding(str(scgpt), cells, SYMBOLS)
    assert (space.top, space.genes) == (10, SYMBOLS)
    found = space(cells)
    assert found.shape == (70, SIZE)
    np.testing.assert_allclose(found, [by_hand(checkpoint, list(cell)) for cell in cells], atol=2e-5)
    assert space([]).shape == (0, SIZE)


def test_genes_that_scgpt_does_not_know_are_left_out_and_counted(scgpt: Path) -> None:
    space = embedding.ScgptEmbedding(scgpt, SYMBOLS, top=10)
    np.testing.assert_allclose(space([("G11", "G1", "G10", "G2")]), space([("G1", "G2")]), atol=1e-6)
    assert space.name.startswith("scGPT <cls> (8) of scGPT_tiny ")
    assert "10 of 12 genes known" in space.name
    assert np.isfinite(space([("G11",)])).all()


def test_values_are_binned_as_scgpt_bins_what_has_no_ties() -> None:
    assert embedding.value_bins(1).tolist() == [50]
    for found in map(embedding.value_bins, (2, 17, 50, 64, 300)):
        assert (found[0], found[-1], (np.diff(found) <= 0).all()) == (50, 1, True)
    _, sizes = np.unique(embedding.value_bins(500), return_counts=True)
    assert sizes.max() - sizes.min() <= 10  # quantiles: equally many genes in each bin


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
