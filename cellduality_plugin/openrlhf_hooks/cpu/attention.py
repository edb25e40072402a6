"""Packed rows (`--ds.packing_samples`) in plain torch, where flash_attn is not: padding costs a quarter.

openrlhf/models/ring_attn_utils.py:3-4 imports helpers of flash_attn whatever attention is chosen.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import operator
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.openrlhf_hooks.cpu.patches import strict, wrap

NAME, STANDS_FOR = "packed_sdpa", "flash_attention_2"


def stand_in(modeling: ModuleType) -> None:
    """`transformers.modeling_utils` gets an attention of its registry where flash_attention_2 is asked for.

    It makes no mask for an attention that it does not know, as for flash_attention_2 of a packed batch.
    """
    modeling.AttentionInterface.register(NAME, attend)

    @wrap(modeling.PreTrainedModel, "_check_and_adjust_attn_implementation")
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
    fewer heads; in ``position_ids``, 1 x tokens, each row begins at 0. Returned is 1 x tokens x heads x size; a
    CellDualityError is raised if the batch is not packed.
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


def all_gather(tensor: torch.Tensor, group: object = None) -> torch.Tensor:
    """Refuse: only ring attention calls this, and ring attention computes on GPUs."""
    what, hint = "ring attention needs flash_attn", "leave it at 1 on a CPU"
    raise CellDualityError(what, code="needs-gpu", where="--ds.ring_attn_size", hint=hint)


@contextlib.contextmanager
def standing_in() -> Iterator[None]:
    """Make `flash_attn` importable inside the block, with transformers' own helpers, unless the real one is installed.

    Only inside: elsewhere a library that looks for flash_attn has to find out that it is not there.
    """
    if importlib.util.find_spec("flash_attn") is not None:
        yield
        return
    from einops import rearrange
    from transformers import modeling_flash_attention_utils as helpers

    with strict("pack_rows"):
        pads = {"pad_input": helpers._pad_input, "unpad_input": helpers._unpad_input}
    names = ("flash_attn", "flash_attn.bert_padding", "flash_attn.utils", "flash_attn.utils.distributed")
    modules: dict[str, Any] = {name: ModuleType(name) for name in names}
    vars(modules["flash_attn.bert_padding"]).update(pads, index_first_axis=operator.getitem, rearrange=rearrange)
    modules["flash_attn.utils.distributed"].all_gather = all_gather
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            sys.modules.pop(name, None)
