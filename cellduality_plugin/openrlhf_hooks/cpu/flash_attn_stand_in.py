"""What openrlhf/models/ring_attn_utils.py:3-4 imports from flash_attn, to pack padded batches, in plain torch."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
from einops import rearrange

from cellduality_plugin.errors import CellDualityError


def index_first_axis(values: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Return the rows `indices` of `values`."""
    return values[indices]


def unpad_input(
    hidden: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int, torch.Tensor]:
    """Return the real tokens of a padded batch, and where they came from.

    ``hidden`` is batch x length x ..., ``mask`` batch x length, 1 for a real token. Returned are the tokens (real
    tokens x ..., row by row), their positions in the flattened batch, the batch + 1 cumulative lengths from 0 (int32),
    the largest number of real tokens in a row, and the real tokens in each row (int32).
    """
    lengths = mask.sum(dim=-1, dtype=torch.int32)
    indices = torch.nonzero(mask.flatten()).flatten()
    bounds = torch.nn.functional.pad(torch.cumsum(lengths, dim=0, dtype=torch.int32), (1, 0))
    return hidden.flatten(0, 1)[indices], indices, bounds, int(lengths.max()), lengths


def pad_input(tokens: torch.Tensor, indices: torch.Tensor, batch: int, length: int) -> torch.Tensor:
    """Return the batch x length x ... tensor with `tokens` at `indices` and zeros elsewhere: undoes `unpad_input`."""
    padded = tokens.new_zeros((batch * length, *tokens.shape[1:]))
    padded = padded.index_copy(0, indices, tokens)
    return padded.unflatten(0, (batch, length))


def all_gather(tensor: torch.Tensor, group: object = None) -> torch.Tensor:
    """Refuse: only ring attention calls this, and ring attention computes on GPUs."""
    what, hint = "ring attention needs flash_attn", "leave it at 1 on a CPU"
    raise CellDualityError(what, code="needs-gpu", where="--ds.ring_attn_size", hint=hint)


@contextlib.contextmanager
def standing_in() -> Iterator[None]:
    """Make `flash_attn` importable inside the block, with the functions above, unless the real one is installed.

    Only inside: elsewhere a library that looks for flash_attn has to find out that it is not there.
    """
    if importlib.util.find_spec("flash_attn") is not None:
        yield
        return
    names = ("flash_attn", "flash_attn.bert_padding", "flash_attn.utils", "flash_attn.utils.distributed")
    modules: dict[str, Any] = {name: ModuleType(name) for name in names}
    for function in (index_first_axis, unpad_input, pad_input, rearrange):
        setattr(modules["flash_attn.bert_padding"], function.__name__, function)
    modules["flash_attn.utils.distributed"].all_gather = all_gather
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            sys.modules.pop(name, None)
