"""The part of scGPT that embeds a cell, with the names that its checkpoints use."""

from __future__ import annotations

import torch
from torch import nn

_LARGEST_VALUE = 512


class TokenEncoder(nn.Module):  # type: ignore[misc]
    """Gene tokens to vectors."""

    def __init__(self, tokens: int, size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, size)
        self.enc_norm = nn.LayerNorm(size)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return cells x tokens x size."""
        return self.enc_norm(self.embedding(tokens))


class ValueEncoder(nn.Module):  # type: ignore[misc]
    """Binned expression to vectors."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(1, size), nn.Linear(size, size)
        self.norm = nn.LayerNorm(size)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return cells x tokens x size."""
        hidden = torch.relu(self.linear1(values.unsqueeze(-1).clamp(max=_LARGEST_VALUE)))
        return self.norm(self.linear2(hidden))


class CellEncoder(nn.Module):  # type: ignore[misc]
    """Tokens and values of a cell to the output of a transformer at its first token.

    ``tokens`` is the size of the vocabulary of genes, ``size`` the width, ``hidden`` that of the feed-forward part.
    """

    def __init__(self, tokens: int, size: int, heads: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.encoder = TokenEncoder(tokens, size)
        self.value_encoder = ValueEncoder(size)
        layer = nn.TransformerEncoderLayer(size, heads, hidden, dropout=0.0, batch_first=True)
        self.transformer_encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, tokens: torch.Tensor, values: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        """Return cells x size; ``padding`` is true where there is no token."""
        embedded = self.encoder(tokens) + self.value_encoder(values)
        return self.transformer_encoder(embedded, src_key_padding_mask=padding)[:, 0]
