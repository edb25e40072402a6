"""A model's sizes, out of its config.json and the headers of its weights; never out of its name alone."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What is not on disk and well known: hidden size, layers, heads, key-value heads, inner size, vocabulary, positions,
# tied embeddings. From the models' published config.json.
_LLAMA, _QWEN = "llama", "qwen2"
_KNOWN: dict[str, tuple[str, int, int, int, int, int, int, int, bool]] = {
    "meta-llama/Llama-3.2-1B-Instruct": (_LLAMA, 2048, 16, 32, 8, 8192, 128256, 131072, True),
    "meta-llama/Llama-3.2-3B-Instruct": (_LLAMA, 3072, 28, 24, 8, 8192, 128256, 131072, True),
    "meta-llama/Llama-3.1-8B-Instruct": (_LLAMA, 4096, 32, 32, 8, 14336, 128256, 131072, False),
    "Qwen/Qwen2.5-0.5B-Instruct": (_QWEN, 896, 24, 14, 2, 4864, 151936, 32768, True),
    "Qwen/Qwen2.5-1.5B-Instruct": (_QWEN, 1536, 28, 12, 2, 8960, 151936, 32768, True),
    "Qwen/Qwen2.5-3B-Instruct": (_QWEN, 2048, 36, 16, 2, 11008, 151936, 32768, True),
    "Qwen/Qwen2.5-7B-Instruct": (_QWEN, 3584, 28, 28, 4, 18944, 152064, 32768, False),
    "HuggingFaceTB/SmolLM2-135M-Instruct": (_LLAMA, 576, 30, 9, 3, 1536, 49152, 8192, True),
}
_FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "phi3")
"""Decoders with gated inner layers, for which the formula of :func:`count_parameters` holds."""


@dataclass(frozen=True)
class Model:
    """What is known of a model.

    Parameters
    ----------
    name
        As the trainer is told it: a folder, or a name of the hub.
    is_local
        Whether it means a folder.
    config
        Its ``config.json``, or the published sizes; empty if neither is at hand.
    parameters
        How many; None if that cannot be told.
    """

    name: str
    is_local: bool
    config: Mapping[str, Any]
    parameters: int | None

    @classmethod
    def read(cls, name: str) -> Model:
        """Return what is known of ``name``. Nothing is downloaded."""
        folder = Path(name)
        is_local = folder.is_absolute() or name.startswith(".") or folder.exists()
        config = _read_config(folder / "config.json") if is_local else (_cached(name) or _known(name))
        return cls(name, is_local, config, _counted(folder) or count_parameters(config))

    @property
    def is_missing(self) -> bool:
        """Return whether it means a folder that holds no model."""
        return self.is_local and not self.config

    @property
    def layers(self) -> int:
        """Return the number of decoder layers; 0 if unknown."""
        return int(self.config.get("num_hidden_layers") or 0)

    @property
    def hidden(self) -> int:
        """Return the hidden size; 0 if unknown."""
        return int(self.config.get("hidden_size") or 0)

    @property
    def vocabulary(self) -> int:
        """Return the rows of the embedding; 0 if unknown."""
        return int(self.config.get("vocab_size") or 0)

    @property
    def heads(self) -> int:
        """Return the attention heads; 0 if unknown."""
        return int(self.config.get("num_attention_heads") or 0)

    @property
    def positions(self) -> int | None:
        """Return how long a sequence may be."""
        found = self.config.get("max_position_embeddings")
        return int(found) if found else None

    @property
    def cache_bytes(self) -> int:
        """Return the bytes of one token in vLLM's cache: 2 (key, value) x layers x kv heads x head size x 2 (bf16)."""
        kv_heads = int(self.config.get("num_key_value_heads") or self.heads)
        return 2 * self.layers * kv_heads * _head_size(self.config) * 2 if self.heads else 0


def count_parameters(config: Mapping[str, Any]) -> int | None:
    """Return the parameters of a decoder with gated inner layers, None for any other family.

    vocabulary x hidden (twice unless tied) + hidden + layers x (hidden x (2 heads + 2 kv heads) x head size
    + 3 hidden x inner + 2 hidden), and the biases of Qwen2's projections.

    Examples
    --------
    >>> count_parameters(_known("meta-llama/Llama-3.2-3B-Instruct"))
    3212749824
    >>> count_parameters(_known("Qwen/Qwen2.5-7B-Instruct"))
    7615616512
    >>> count_parameters({"model_type": "mamba"}) is None
    True
    """
    if config.get("model_type") not in _FAMILIES:
        return None
    try:
        hidden, inner = config["hidden_size"], config["intermediate_size"]
        heads, layers, words = config["num_attention_heads"], config["num_hidden_layers"], config["vocab_size"]
    except KeyError:
        return None
    kv_heads, size = config.get("num_key_value_heads") or heads, _head_size(config)
    layer = hidden * (2 * heads + 2 * kv_heads) * size + 3 * hidden * inner + 2 * hidden
    if config["model_type"] == _QWEN:
        layer += (heads + 2 * kv_heads) * size
    if config["model_type"] == "qwen3":
        layer += 2 * size
    return int(words * hidden * (1 if config.get("tie_word_embeddings") else 2) + hidden + layers * layer)


def _head_size(config: Mapping[str, Any]) -> int:
    return int(config.get("head_dim") or config.get("hidden_size", 0) // max(1, config.get("num_attention_heads", 1)))


def _read_config(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _cached(name: str) -> dict[str, Any]:
    """Return the config.json of a hub model that was downloaded before."""
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        return {}
    try:
        path = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return {}
    return _read_config(Path(path)) if isinstance(path, str) else {}


def _known(name: str) -> dict[str, Any]:
    if name not in _KNOWN:
        return {}
    family, hidden, layers, heads, kv_heads, inner, words, positions, tied = _KNOWN[name]
    return {
        "model_type": family, "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "intermediate_size": inner, "vocab_size": words,
        "max_position_embeddings": positions, "tie_word_embeddings": tied,
    }  # fmt: skip


def _counted(folder: Path) -> int | None:
    """Return the parameters named in the headers of a folder's safetensors, None if there are none to read."""
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with path.open("rb") as stream:
                [size] = struct.unpack("<Q", stream.read(8))
                if size > 1 << 27:  # no header is that long
                    return None
                header = json.loads(stream.read(size))
        except (OSError, ValueError, struct.error):
            return None
        total += sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    return total or None
