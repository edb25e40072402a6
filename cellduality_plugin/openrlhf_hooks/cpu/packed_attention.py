"""Attention within each row of a packed batch (`--ds.packing_samples`), in plain torch: padding costs a quarter."""

from __future__ import annotations

import functools
import itertools
from types import ModuleType
from typing import Any

import torch

from cellduality_plugin.errors import CellDualityError
from cellduality_plugin.openrlhf_hooks.cpu.upstream import existing

NAME, STANDS_FOR = "packed_sdpa", "flash_attention_2"


def stand_in(modeling: ModuleType) -> None:
    """`transformers.modeling_utils` gets an attention of its registry where flash_attention_2 is asked for.

    It makes no mask for an attention that it does not know, as for flash_attention_2 of a packed batch.
    """
    behaviour = "training on packed rows"
    existing(modeling, "AttentionInterface", behaviour).register(NAME, attend)
    cls = existing(modeling, "PreTrainedModel", behaviour)
    adjust = existing(cls, "_check_and_adjust_attn_implementation", behaviour)

    @functools.wraps(adjust)
    def check_and_adjust(self: Any, asked: str | None, *args: Any, **options: Any) -> Any:
        return adjust(self, NAME if asked == STANDS_FOR else asked, *args, **options)

    cls._check_and_adjust_attn_implementation = check_and_adjust


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
