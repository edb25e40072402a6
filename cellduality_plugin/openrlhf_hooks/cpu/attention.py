"""Packed rows (`--ds.packing_samples`) in plain torch, where flash_attn is not: padding costs a quarter.

`unpad_input` and its like are what openrlhf/models/ring_attn_utils.py:3-4 imports from flash_attn.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.openrlhf_hooks.cpu.patches import existing, wrap

NAME, STANDS_FOR = "packed_sdpa", "flash_attention_2"


def stand_in(modeling: ModuleType) -> None:
    """`transformers.modeling_utils` gets an attention of its registry where flash_attention_2 is asked for.

    It makes no mask for an attention that it does not know, as for flash_attention_2 of a packed batch.
    """
    behaviour = "training on packed rows"
    existing(modeling, "AttentionInterface", behaviour).register(NAME, attend)

    @wrap(existing(modeling, "PreTrainedModel", behaviour), "_check_and_adjust_attn_implementation", behaviour)
    def check_and_adjust(adjust: Callable[..., Any], self: Any, asked: str | None, *args: Any, **options: Any) -> Any:
        return adjust(self, NAME if asked == STANDS_FOR else asked, *args, **options)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    position_ids: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Return what each token gets from those before it in its row, as transformers wants it.

    ``query``, ``key`` and ``value`` are 1 x heads x tokens x size, all rows in one line, ``key`` and ``value`` maybe of
    fewer heads; in ``position_ids``, 1 x tokens, each row begins at 0. What is attended is 1 x tokens x heads x size. A
    CellDualityError is raised if the batch is not packed: transformers hands no mask of padding to an attention that
    it does not know.
    """
    if query.shape[0] != 1 or position_ids is None:
        what = f"{STANDS_FOR} is there for packed rows alone, and these are not packed"
        hint = "pass --ds.packing_samples, too, or --ds.attn_implementation sdpa"
        raise CellDualityError(what, code="needs-gpu", where="--ds.attn_implementation", hint=hint)
    bounds = [*torch.nonzero(position_ids[0] == 0).flatten().tolist(), query.shape[2]]
    rows = [
        torch.nn.functional.scaled_dot_product_attention(
            query[:, :, start:end], key[:, :, start:end], value[:, :, start:end],
            dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=query.shape[1] != key.shape[1],
        )
        for start, end in itertools.pairwise(bounds)
    ]  # fmt: skip
    return torch.cat(rows, dim=2).transpose(1, 2), None


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
    from einops import rearrange

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
