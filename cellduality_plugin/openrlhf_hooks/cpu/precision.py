"""The fast numbers of this processor: bfloat16 where it has instructions for it, else float32."""

from __future__ import annotations

import os
from pathlib import Path

DTYPE_VARIABLE = "CELLDUALITY_CPU_DTYPE"
_INSTRUCTIONS = {"avx512_bf16", "amx_bf16", "bf16"}


def fast_dtype(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return ``"bfloat16"`` if the kernel lists processor instructions for it, else ``"float32"``."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "float32"
    features = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return "bfloat16" if _INSTRUCTIONS & set(features.split()) else "float32"


def computes_in_float32() -> bool:
    """Return whether the launcher chose float32 for this run (:data:`DTYPE_VARIABLE`)."""
    return os.environ.get(DTYPE_VARIABLE) == "float32"
