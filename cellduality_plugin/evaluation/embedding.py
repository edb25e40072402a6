"""The declared space of all distances: PCA of cell sentences, scGPT (Cui et al. 2024) with torch alone, or another."""

from __future__ import annotations

import contextlib
import hashlib
import json
import pickle
import re
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.import_paths import load_class

if TYPE_CHECKING:
    import torch

PCA_SPACE = "pca"
CLASS_TOKEN = "<cls>"
BINS = 51  # of expression values, the first of genes that are not expressed, which cell sentences do not hold
_BATCH = 32
_MOST_TOKENS, _LARGEST_VALUE = 1200, 512
_FLASH = re.compile(r"self_attn\.(_impl\.)?Wqkv\.")

_DENSE_AT_MOST = 20_000_000  # entries: 160 MB of doubles
_CHUNK = 1024


def rank_profile(top: int) -> NDArray[np.float64]:
    """Return the weight of ranks 1 .. ``top``: 1 - log(rank) / log(top + 1), falling from 1 to just above 0.

    Log-expression falls about linearly with log rank; a gene outside the sentence weighs 0.
    """
    return np.asarray(1.0 - np.log(np.arange(1, top + 1)) / np.log(top + 1))


def cell_matrix(cells: Sequence[Sequence[str]], genes: Sequence[str], top: int) -> csr_matrix:
    """Return cells x ``genes``: the :func:`rank_profile` of each gene's rank, 0 for genes a cell does not list.

    ``cells`` are ranked genes, descending, unique; ranks past ``top`` are ignored. A KeyError if a cell lists a gene
    that is not in the vocabulary ``genes``.
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

    It is called with the real training cells (ranked genes), the genes of the vocabulary and, by name, the ``seed``.
    """

    genes: tuple[str, ...]  # the vocabulary
    top: int  # the length of a real cell sentence at the most
    name: str  # the space as it is printed beside every distance

    @abstractmethod
    def __call__(self, cells: Sequence[Sequence[str]]) -> NDArray[np.float64]:
        """Return the points of ``cells`` (ranked genes, descending, unique): cells x dimensions, also of no cells."""


class PcaEmbedding(Embedding):
    """Principal components of the :func:`cell_matrix` of three real training cells or more, else a CellDualityError.

    They are fewer than ``components`` where there are fewer cells or genes. The seed is for the iterative solver of
    large matrices.
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


def value_bins(count: int) -> NDArray[np.int64]:
    """Return the expression bin, :data:`BINS` - 1 to 1, of ``count`` ranked genes: by :func:`rank_profile`."""
    values = rank_profile(count)
    return np.digitize(values, np.quantile(values, np.linspace(0, 1, BINS - 1))).astype(np.int64)


class ScgptEmbedding(Embedding):
    """The output of scGPT at its <cls> token, of length 1, from the checkpoint in ``folder``.

    Of args.json, vocab.json and best_model.pt only tensors are read, no code. Unlike the authors' ``embed_data`` it
    takes :func:`value_bins` in place of counts, single precision, and the first 1199 known genes of a cell. A
    CellDualityError if a file is missing or does not fit, or scGPT knows none of the genes.
    """

    def __init__(self, folder: Path, genes: Sequence[str], top: int) -> None:
        import torch

        with _checkpoint(folder / "args.json") as path:
            settings = _table(json.loads(path.read_text(encoding="utf-8")))
            sizes = [settings[name] for name in ("embsize", "nheads", "d_hid", "nlayers")]
            if not all(isinstance(size, int) for size in sizes):
                raise TypeError(f"sizes of layers {sizes}, not whole numbers")
            style = settings.get("input_emb_style", settings.get("input_style", "continuous"))
            if style not in ("continuous", "binned"):
                raise ValueError(f"values in the style {style!r}, not continuous")
        with _checkpoint(folder / "vocab.json") as path:
            vocabulary = _table(json.loads(path.read_text(encoding="utf-8")))
            known = {gene: vocabulary[gene] for gene in genes if gene in vocabulary}
            self._tokens = {**known, CLASS_TOKEN: vocabulary[CLASS_TOKEN]}
            if not known:
                raise ValueError(f"none of the {len(genes)} genes known")
        with _checkpoint(folder / "best_model.pt") as path:
            weights = _table(torch.load(path, map_location="cpu", weights_only=True))
            version = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
            # Checkpoints are saved with flash attention's names.
            model = _model({_FLASH.sub("self_attn.in_proj_", name): own for name, own in weights.items()}, *sizes)
        self._model = model.to("cuda" if torch.cuda.is_available() else "cpu")
        self.genes, self.top, self._size = tuple(genes), top, sizes[0]
        self._pad_value = float(settings.get("pad_value", -2))
        self.name = (
            f"scGPT {CLASS_TOKEN} ({self._size}) of {folder.name} {version}, ranks in {BINS - 1} value bins, "
            f"{len(known)} of {len(genes)} genes known"
        )

    def __call__(self, cells: Sequence[Sequence[str]]) -> NDArray[np.float64]:
        import torch

        parts = [np.empty((0, self._size))]
        with torch.inference_mode():
            for start in range(0, len(cells), _BATCH):
                tokens, values, padding = self._batch(cells[start : start + _BATCH])
                embedded = self._model["encoder"](tokens)
                embedded = embedded + self._model["value_encoder"](values.unsqueeze(-1).clamp(max=_LARGEST_VALUE))
                points = self._model["transformer_encoder"](embedded, src_key_padding_mask=padding)[:, 0]
                parts.append(torch.nn.functional.normalize(points, dim=1).double().cpu().numpy())
        return np.concatenate(parts)

    def _batch(self, cells: Sequence[Sequence[str]]) -> Iterator[torch.Tensor]:
        """Yield tokens, values and which of them are padding: cells x longest cell."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        known = [[self._tokens[gene] for gene in cell if gene in self._tokens][: _MOST_TOKENS - 1] for cell in cells]
        tokens = [torch.tensor([self._tokens[CLASS_TOKEN], *own]) for own in known]
        values = [torch.tensor([self._pad_value, *(value_bins(len(own)) if own else ())]).float() for own in known]
        padding = [torch.zeros(len(own), dtype=torch.bool) for own in tokens]
        device = next(self._model.parameters()).device
        for columns, filled in ((tokens, 0), (values, self._pad_value), (padding, True)):  # of tokens any will do
            yield pad_sequence(columns, batch_first=True, padding_value=filled).to(device)


@contextlib.contextmanager
def _checkpoint(path: Path) -> Iterator[Path]:
    """Turn what the block finds wrong with a file of a checkpoint into one line that names it."""
    wrong = (OSError, ValueError, TypeError, KeyError, RuntimeError, EOFError, pickle.UnpicklingError)
    try:
        yield path
    except wrong as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        hint = "give an scGPT checkpoint of whole human cells as its authors publish it, or one fine-tuned from it"
        raise CellDualityError(what, code="wrong-checkpoint", where=str(path), hint=hint) from error


def _table(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise TypeError(f"a {type(content).__name__}, not a table by name")
    return content


def _model(weights: Mapping[str, Any], size: int, heads: int, hidden: int, layers: int) -> Any:
    """Return the parts of scGPT that embed a cell, with their weights: other heads of the checkpoint are left out."""
    from torch import nn

    tokens = len(weights["encoder.embedding.weight"])
    genes = {"embedding": nn.Embedding(tokens, size), "enc_norm": nn.LayerNorm(size)}
    values = {
        "linear1": nn.Linear(1, size), "relu": nn.ReLU(), "linear2": nn.Linear(size, size), "norm": nn.LayerNorm(size)
    }  # fmt: skip
    layer = nn.TransformerEncoderLayer(size, heads, hidden, dropout=0.0, batch_first=True)
    transformer = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
    parts = {"encoder": nn.Sequential(OrderedDict(genes)), "value_encoder": nn.Sequential(OrderedDict(values))}
    model = nn.ModuleDict({**parts, "transformer_encoder": transformer})
    model.load_state_dict({name: tensor for name, tensor in weights.items() if name in model.state_dict()})
    return model.float().eval()


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
        return ScgptEmbedding(Path(space), genes, top=max(map(len, cells), default=1))
    if ":" not in space:
        hint = "give pca, the folder of an scGPT checkpoint (args.json, vocab.json, best_model.pt), or module:Class"
        raise CellDualityError(f"no embedding {space!r}", code="unknown-embedding", where="embedding", hint=hint)
    own: Any = load_class(space, Embedding, what="embedding", where="embedding")
    found: Embedding = own(cells, genes, seed=seed)
    return found
