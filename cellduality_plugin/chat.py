"""How a question becomes tokens: the one place, for rollouts, checks and evaluation alike."""

from __future__ import annotations

from typing import Any

from cellduality_plugin.errors import CellDualityError


def render(tokenizer: Any, prompt: str) -> list[int]:
    """Return the token ids of one user turn, made as OpenRLHF makes them for a rollout.

    The chat template is applied as text and tokenised without special tokens: the template writes its own.
    """
    chat = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text=text, add_special_tokens=False)["input_ids"])


def token_count(tokenizer: Any, text: str) -> int:
    """Return how many tokens ``text`` has inside a turn."""
    return len(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else 0


def check_template(tokenizer: Any, where: str) -> None:
    """Raise a CellDualityError if there is no chat template, by which questions become tokens."""
    if not tokenizer.chat_template:
        what, hint = "the model has no chat template", "start from an instruction-tuned model, or add a chat_template"
        raise CellDualityError(what, code="no-chat-template", where=where, hint=f"{hint} to its tokenizer")
