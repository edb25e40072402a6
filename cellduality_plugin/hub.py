"""Models that are named as the hub names them: their folder, downloaded where it is not there yet; their tokenizer."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from cellduality_plugin.chat import render
from cellduality_plugin.errors import CellDualityError

_PLAIN = ("PreTrainedTokenizerFast", "TokenizersBackend")  # the same class, before transformers 5 and since
_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]


def looks_local(model: str) -> bool:
    """Return whether ``model`` means a folder, and not a model of the hub."""
    return Path(model).is_absolute() or model.startswith(".") or model.count("/") != 1 or Path(model).exists()


def local_model(model: str | Path) -> Path:
    """Return the folder of ``model``, itself or the hub's copy; a CellDualityError if there are no safetensors."""
    name = str(model)
    if looks_local(name):
        return Path(model)
    try:
        from huggingface_hub import snapshot_download

        # Llama's repositories hold the weights a second time, in original/.
        folder = Path(snapshot_download(name, allow_patterns=_FILES, ignore_patterns=["original/*"]))
    except ImportError as error:
        hint = "install it (recipes/setup.sh), or give a folder"
        raise CellDualityError(f"cannot import {error.name}", code="not-installed", where=name, hint=hint) from error
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        what = f"no such folder, and not to be had from the hub: {reason:.160}"
        raise CellDualityError(what, code="no-model", where=name, hint=advice(error)) from error
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        what, hint = "the hub's model has no config.json or no safetensors", "convert it, and give the folder"
        raise CellDualityError(what, code="no-weights", where=name, hint=hint)
    return folder


def advice(error: BaseException | None) -> str:
    """Return what to do when the hub refuses; the hub's own client wraps its reasons several times."""
    if error is None:
        return "check the name and the network"
    if type(error).__name__ == "GatedRepoError":
        return "accept the model's licence on its page, then log in (hf auth login) or set HF_TOKEN"
    return advice(error.__cause__ or error.__context__)


def read_tokenizer(model: str, chat_template: str | None = None) -> Any:
    """Return the tokenizer at ``model``, a folder or a hub name; a CellDualityError if there is none, or its chat
    template is missing or cannot be rendered."""
    import transformers
    from jinja2 import TemplateError

    named = Path(model, "tokenizer_config.json")
    try:
        plain = named.is_file() and json.loads(named.read_text("utf-8")).get("tokenizer_class") in _PLAIN
        # AutoTokenizer imports every model there is, which takes as long as all else that is done before a run.
        reader: Any = transformers.PreTrainedTokenizerFast if plain else transformers.AutoTokenizer
        tokenizer = reader.from_pretrained(model, local_files_only=not looks_local(model) and not _hub_answers())
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"cannot load the tokenizer: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
        raise CellDualityError(what, code="no-tokenizer", where=model, hint=advice(error)) from error
    tokenizer.chat_template = chat_template or tokenizer.chat_template
    if not tokenizer.chat_template:
        what, hint = "the model has no chat template", "start from an instruction-tuned model, or add a chat_template"
        raise CellDualityError(what, code="no-chat-template", where=model, hint=f"{hint} to its tokenizer")
    try:
        render(tokenizer, "Which type is the cell?")
    except TemplateError as error:
        what = f"the chat template cannot be rendered: {error}"
        raise CellDualityError(what, code="bad-chat-template", where=model, hint="correct the template") from error
    return tokenizer


def _hub_answers() -> bool:
    """Return whether the hub can be reached now; its own client goes on trying for the better part of a minute."""
    import httpx

    try:
        httpx.head(os.environ.get("HF_ENDPOINT", "https://huggingface.co"), timeout=5)
    except (httpx.HTTPError, httpx.InvalidURL):
        return False
    return True
