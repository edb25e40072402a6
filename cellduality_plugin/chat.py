"""Tokenizers, and how a question becomes tokens: the one place, for rollouts, checks and evaluation alike."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cellduality_plugin.errors import CellDualityError


def render(tokenizer: Any, prompt: str) -> list[int]:
    """Return the token ids of one user turn, made as OpenRLHF makes them for a rollout.

    The chat template is applied as text and tokenised without special tokens: the template writes its own.
    """
    chat = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return token_ids(tokenizer, text)


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """Return the token ids of ``text`` inside a turn."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []


def token_count(tokenizer: Any, text: str) -> int:
    """Return how many tokens ``text`` has inside a turn."""
    return len(token_ids(tokenizer, text))


def check_template(tokenizer: Any, where: str) -> None:
    """Raise a CellDualityError if there is no chat template, by which questions become tokens."""
    if not tokenizer.chat_template:
        what, hint = "the model has no chat template", "start from an instruction-tuned model, or add a chat_template"
        raise CellDualityError(what, code="no-chat-template", where=where, hint=f"{hint} to its tokenizer")


def read_tokenizer(model: str, chat_template: str | None = None) -> Any:
    """Return the tokenizer at ``model``, a folder that may hold nothing else, or a hub name.

    A CellDualityError is raised if there is none, or no chat template that can be rendered.
    """
    import transformers
    from jinja2 import TemplateError

    named, plain = Path(model, "tokenizer_config.json"), '"tokenizer_class": "PreTrainedTokenizerFast"'
    reader: Any = transformers.AutoTokenizer
    try:
        # AutoTokenizer imports every model there is, which takes as long as all else that is done before a run.
        if named.is_file() and plain in named.read_text("utf-8"):
            reader = transformers.PreTrainedTokenizerFast
        tokenizer = reader.from_pretrained(model, local_files_only=not looks_local(model) and not _hub_answers())
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"cannot load the tokenizer: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
        raise CellDualityError(what, code="no-tokenizer", where=model, hint="check the name and the network") from error
    tokenizer.chat_template = chat_template or tokenizer.chat_template
    check_template(tokenizer, model)
    try:
        render(tokenizer, "Which type is the cell?")
    except TemplateError as error:
        what = f"the chat template cannot be rendered: {error}"
        raise CellDualityError(what, code="bad-chat-template", where=model, hint="correct the template") from error
    return tokenizer


def looks_local(model: str) -> bool:
    """Return whether a model is meant as a folder, and not as a name of the hub."""
    return Path(model).is_absolute() or model.startswith(".") or Path(model).exists()


def _hub_answers() -> bool:
    """Return whether the hub can be reached now; its own client goes on trying for the better part of a minute."""
    import httpx

    try:
        httpx.head(os.environ.get("HF_ENDPOINT", "https://huggingface.co"), timeout=5)
    except (httpx.HTTPError, httpx.InvalidURL):
        return False
    return True
