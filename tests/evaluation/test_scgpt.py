"""scGPT's cell embedding: a tiny checkpoint of that architecture against the same arithmetic in numpy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cellduality_plugin.evaluation.embedding import ScgptEmbedding, open_embedding, value_bins
from tests.refused import refused

GENES = tuple(f"G{number}" for number in range(12))
SIZE, HEADS, HIDDEN, LAYERS = 8, 2, 16, 2
TOKENS = {"<pad>": 0, "<cls>": 1, "<eoc>": 2, **{gene: 3 + place for place, gene in enumerate(GENES[:10])}}


def weights(rng: np.random.Generator) -> dict[str, torch.Tensor]:
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
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "scGPT_tiny"
    found.mkdir()
    arguments = {"embsize": SIZE, "nheads": HEADS, "d_hid": HIDDEN, "nlayers": LAYERS, "pad_value": -2}
    (found / "args.json").write_text(json.dumps(arguments))
    (found / "vocab.json").write_text(json.dumps(TOKENS))
    torch.save(weights(np.random.default_rng(0)), found / "best_model.pt")
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

    values = np.array([-2.0, *value_bins(len(genes))])
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


def test_the_embedding_is_that_of_the_architecture(folder: Path) -> None:
    rng = np.random.default_rng(1)
    cells = [tuple(rng.permutation(GENES[:10])[: rng.integers(1, 11)].tolist()) for _ in range(70)]
    checkpoint = torch.load(folder / "best_model.pt", weights_only=True)
    space = open_embedding(str(folder), cells, GENES)
    assert (space.top, space.genes) == (10, GENES)
    found = space(cells)
    assert found.shape == (70, SIZE)
    np.testing.assert_allclose(found, [by_hand(checkpoint, list(cell)) for cell in cells], atol=2e-5)
    assert space([]).shape == (0, SIZE)


def test_genes_that_scgpt_does_not_know_are_left_out_and_counted(folder: Path) -> None:
    space = ScgptEmbedding(folder, GENES, top=10)
    np.testing.assert_allclose(space([("G11", "G1", "G10", "G2")]), space([("G1", "G2")]), atol=1e-6)
    assert space.name.startswith("scGPT <cls> (8) of scGPT_tiny ")
    assert "10 of 12 genes known" in space.name
    assert np.isfinite(space([("G11",)])).all()


def test_values_are_binned_as_scgpt_bins_what_has_no_ties() -> None:
    assert value_bins(1).tolist() == [50]
    for count in (2, 17, 50, 64, 300):
        found = value_bins(count)
        assert found[0] == 50
        assert found[-1] == 1
        assert (np.diff(found) <= 0).all()
    _, sizes = np.unique(value_bins(500), return_counts=True)
    assert sizes.max() - sizes.min() <= 10  # quantiles: equally many genes in each bin


ARGUMENTS = {"embsize": SIZE, "nheads": HEADS, "d_hid": HIDDEN, "nlayers": LAYERS}


@pytest.mark.parametrize(
    ("file", "content", "what"),
    [
        ("args.json", "{", "unreadable"),
        ("args.json", '{"embsize": 8}', "'nheads'"),
        ("args.json", json.dumps({**ARGUMENTS, "input_emb_style": "category"}), "'category'"),
        ("args.json", json.dumps({**ARGUMENTS, "d_hid": 32}), "size mismatch"),
        ("args.json", json.dumps({**ARGUMENTS, "nlayers": 3}), "transformer_encoder.layers.2"),
        ("vocab.json", "[]", "not a JSON object"),
        ("vocab.json", '{"G1": 0}', "no <cls> token"),
        ("vocab.json", '{"<cls>": 0, "MS4A1": 1}', "none of the 12 genes"),
        ("best_model.pt", "not a checkpoint", "unreadable"),
        ("best_model.pt", None, "unreadable"),
        ("best_model.pt", [1, 2], "not a table of weights"),
        ("best_model.pt", {"other": torch.zeros(1)}, "no weight 'encoder.embedding.weight'"),
    ],
)
def test_what_is_wrong_with_a_checkpoint_is_named_with_its_file(folder: Path, file: str, content, what: str) -> None:
    if content is None:
        (folder / file).unlink()
    elif isinstance(content, str):
        (folder / file).write_text(content)
    else:
        torch.save(content, folder / file)
    with refused("wrong-checkpoint") as error:
        ScgptEmbedding(folder, GENES, top=10)
    assert what in error.value.what
    assert Path(error.value.where).parent == folder
