"""How a question becomes tokens: the one place, for rollouts, checks and evaluation alike."""

from __future__ import annotations

from typing import Any


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
