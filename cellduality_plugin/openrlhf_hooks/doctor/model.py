"""A model's sizes, out of its config.json and the headers of its weights; never out of its name alone."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Of well-known models that are not on disk, from their published config.json.
_FIELDS = (
    "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "intermediate_size", "vocab_size", "max_position_embeddings", "tie_word_embeddings",
)  # fmt: skip
_KNOWN: dict[str, tuple[str, int, int, int, int, int, int, int, bool]] = {
    "meta-llama/Llama-3.2-1B-Instruct": ("llama", 2048, 16, 32, 8, 8192, 128256, 131072, True),
    "meta-llama/Llama-3.2-3B-Instruct": ("llama", 3072, 28, 24, 8, 8192, 128256, 131072, True),
    "meta-llama/Llama-3.1-8B-Instruct": ("llama", 4096, 32, 32, 8, 14336, 128256, 131072, False),
    "Qwen/Qwen2.5-0.5B-Instruct": ("qwen2", 896, 24, 14, 2, 4864, 151936, 32768, True),
    "Qwen/Qwen2.5-1.5B-Instruct": ("qwen2", 1536, 28, 12, 2, 8960, 151936, 32768, True),
    "Qwen/Qwen2.5-3B-Instruct": ("qwen2", 2048, 36, 16, 2, 11008, 151936, 32768, True),
    "Qwen/Qwen2.5-7B-Instruct": ("qwen2", 3584, 28, 28, 4, 18944, 152064, 32768, False),
    "HuggingFaceTB/SmolLM2-135M-Instruct": ("llama", 576, 30, 9, 3, 1536, 49152, 8192, True),
}
_GATED_DECODERS = ("llama", "mistral", "qwen2", "qwen3", "phi3")


@dataclass(frozen=True)
class Model:
    """What is known of a model."""

    name: str  # as the trainer is given it: a folder, or a name of the hub
    is_local: bool  # whether it means a folder
    config: Mapping[str, Any]  # its config.json, or the published sizes; empty if neither is at hand
    parameters: int | None  # how many; None if that is not known

    @classmethod
    def read(cls, name: str) -> Model:
        """Return what is known of ``name``. Nothing is downloaded."""
        folder = Path(name)
        is_local = folder.is_absolute() or name.startswith(".") or folder.exists()
        config = _read_config(folder / "config.json") if is_local else (_cached(name) or _known(name))
        return cls(name, is_local, config, _count_weights(folder) or count_parameters(config))

    @property
    def is_missing(self) -> bool:
        """Return whether it means a folder that holds no model."""
        return self.is_local and not self.config

    def size(self, name: str) -> int:
        """Return a number of its config.json; 0 if it is unknown."""
        return int(self.config.get(name) or 0)

    @property
    def cache_bytes(self) -> int:
        """Return the bytes of one token in vLLM's cache: 2 (key, value) x layers x kv heads x head size x 2 (bf16)."""
        heads = self.size("num_key_value_heads") or self.size("num_attention_heads")
        return 2 * self.size("num_hidden_layers") * heads * _head_size(self.config) * 2


def count_parameters(config: Mapping[str, Any]) -> int | None:
    """Return the parameters of a decoder with gated inner layers, None for any other family.

    vocabulary x hidden (twice unless tied) + hidden + layers x (hidden x (2 heads + 2 kv heads) x head size
    + 3 hidden x inner + 2 hidden), and the biases of Qwen2's projections.
    """
    family = config.get("model_type")
    names = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "vocab_size")
    hidden, inner, heads, layers, words = sizes = [int(config.get(name) or 0) for name in names]
    if family not in _GATED_DECODERS or not all(sizes):
        return None
    kv_heads, size = config.get("num_key_value_heads") or heads, _head_size(config)
    layer = hidden * (2 * heads + 2 * kv_heads) * size + 3 * hidden * inner + 2 * hidden
    layer += {"qwen2": (heads + 2 * kv_heads) * size, "qwen3": 2 * size}.get(family, 0)
    return int(words * hidden * (1 if config.get("tie_word_embeddings") else 2) + hidden + layers * layer)


def _head_size(config: Mapping[str, Any]) -> int:
    return int(config.get("head_dim") or config.get("hidden_size", 0) // max(1, config.get("num_attention_heads", 1)))


def _read_config(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def _cached(name: str) -> dict[str, Any]:
    """Return the config.json of a hub model that was downloaded before."""
    with contextlib.suppress(ImportError, ValueError):  # a name that the hub could not have is a ValueError
        from huggingface_hub import try_to_load_from_cache

        return _read_config(Path(str(try_to_load_from_cache(name, "config.json"))))
    return {}


def _known(name: str) -> dict[str, Any]:
    return dict(zip(_FIELDS, _KNOWN[name], strict=True)) if name in _KNOWN else {}


def _count_weights(folder: Path) -> int | None:
    """Return the parameters named in the headers of a folder's safetensors, None if there are none to read."""
    from safetensors import SafetensorError, safe_open

    total = 0
    with contextlib.suppress(OSError, SafetensorError):
        for path in folder.glob("*.safetensors"):
            with safe_open(path, framework="numpy") as weights:
                total += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
        return total or None
    return None
