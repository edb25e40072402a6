"""Small models to start from on a CPU."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellduality_plugin.files import whole_folder, write_text
from data_prep.manifests import code_sha256, refuse_changed, up_to_date, write_manifest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILES = ("model.safetensors", "tokenizer.json")  # the files of a model whose manifests tell what it was made of


def made_of(code: str, **sources: Any) -> dict[str, Any]:
    """Return what the manifests of a model say that it was made of: ``sources``, and the module ``code``."""
    return {**sources, "code_sha256": code_sha256([Path(code)])}


def is_there(out: Path, origin: Mapping[str, Any]) -> bool:
    """Return whether ``out`` holds the model that is made of ``origin``, unchanged."""
    return up_to_date([out / name for name in FILES], origin)


def write_model(
    out: Path, model: Any, tokenizer: PreTrainedTokenizerBase, origin: Mapping[str, Any], *, plain: bool = False
) -> None:
    """Write a model and its tokenizer to ``out``, with manifests; it ends where the tokenizer's eos stands.

    A ``plain`` tokenizer goes under the name of the class that every release of transformers can load. A
    CellDualityError is raised if the folder cannot be written, or holds a model that was changed by hand.
    """
    from transformers import GenerationConfig

    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    model.config.update(ids)
    model.generation_config = GenerationConfig(**ids)
    refuse_changed(out / name for name in FILES)
    with whole_folder(out) as folder:
        tokenizer.save_pretrained(folder)
        if plain:
            path = folder / "tokenizer_config.json"
            content = {**json.loads(path.read_text(encoding="utf-8")), "tokenizer_class": "PreTrainedTokenizerFast"}
            write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        model.save_pretrained(folder)
        for name in FILES:
            counts = {"parameters": model.num_parameters(), "tokens": len(tokenizer)}
            write_manifest(folder / name, origin, counts=counts)
